"""What is stored in a folder is replaced by the same request, or with overwrite=true, and never unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusion_policy.common.config import ConfigError

ADVICE = "choose another output_dir=, or overwrite=true to replace it"


def refuse_another(path: Path, part: str, asked: dict[str, Any], what: str, *, alone: bool = True) -> None:
    """Refuses a folder whose description is of another request.

    Args:
        path: the description, a JSON file; where there is none, nothing is refused.
        part: the key of the request in it.
        asked: the request of now.
        what: what the folder holds, in words: `benchmark`, `study`, ...
        alone: whether nothing but the request stands there, so that a setting which is not asked for now counts, too.

    Raises:
        ConfigError: it is of another request, or damaged.
    """
    if not path.exists():
        return
    asked = json.loads(json.dumps(asked))  # tuples and the like as they come back from a file
    try:
        stored = dict(json.loads(path.read_bytes())[part])
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        raise ConfigError(f"{path} is damaged ({error}): restore it, {ADVICE}") from error
    differs = [
        f"{name} {stored.get(name, 'not recorded')} there, {asked.get(name, 'not asked for')} now"
        for name in dict.fromkeys([*asked, *(stored if alone else ())])
        if stored.get(name) != asked.get(name)
    ]
    if differs:
        raise ConfigError(f"{path.parent} holds another {what} ({'; '.join(differs)}): {ADVICE}")
