"""JSON as this project writes it: UTF-8, no key twice, no NaN, numbers of an ordinary size."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DIGITS = 19  # 64-bit numbers; longer ones are damage, and slow to convert


class StrictJSONError(ValueError):
    """The bytes are not such JSON; the message says what is wrong in one line."""


def loads(raw: bytes) -> Any:
    """Parses UTF-8 bytes in linear time.

    Raises:
        StrictJSONError: damaged or truncated, nested too deeply, a key twice, NaN or Infinity, a number out of range.
    """
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_constant,
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StrictJSONError(f"not complete JSON ({error})") from error
    except RecursionError as error:
        raise StrictJSONError("not complete JSON (nested too deeply)") from error


def short_repr(value: Any, limit: int = 80) -> str:
    """`value` as it is written in code, cut to `limit` characters, for error messages."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= limit else repr(value[:limit]) + "..."
    if isinstance(value, (list, tuple, set, frozenset, dict)) and len(value) > limit:
        return f"a {type(value).__name__} of {len(value)} values"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested without end, or an integer too long to print
        return f"a {type(value).__name__}"
    return text if len(text) <= limit else text[:limit] + "..."


def some(names: list[str] | tuple[str, ...], limit: int = 3) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(name if len(name) <= 80 else name[:80] + "..." for name in names[:limit]) + more


def repeated(names: list[str] | tuple[str, ...]) -> list[str]:
    """Names that occur more than once, sorted; in linear time but for the sorting."""
    seen: set[str] = set()
    twice: set[str] = set()
    for name in names:
        (twice if name in seen else seen).add(name)
    return sorted(twice)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):  # json would silently keep the last one
        keys = repeated([key for key, _ in pairs])
        raise StrictJSONError(f"these keys occur more than once: {some(keys)}; remove the repetition")
    return result


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS + 1:
        raise StrictJSONError(f"an integer of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StrictJSONError(f"the number {text[:20]}, which is out of range")
    return value


def _constant(text: str) -> float:
    raise StrictJSONError(f"{text} where a number should be")
