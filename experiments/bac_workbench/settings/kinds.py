"""The kinds of values that settings have, each with the words that tell a user what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MILLION = 1_000_000
NO_CONTROL = r"[^\x00-\x1f\x7f]*"  # neither line breaks nor a NUL, which no file name can have


@dataclass(frozen=True)
class Kind:
    """What an error message says of a value.

    Attributes:
        allowed: ends the sentence "use ..."; {name} stands for the setting.
        choices: all values, where there are few.
        text: whether numbers, true and null stand for their own letters, as in output_dir=007.
        null: whether null has a meaning.
    """

    allowed: str
    choices: tuple[str, ...] = ()
    text: bool = False
    null: bool = False


class Section(BaseModel):
    """Settings of one level, immutable: what is wrong with them, and the values themselves.

    Types are strict: 4.7, true and "4" are no whole numbers. Keys without a field are kept and not judged: they are for
    what is built from the section, such as `_target_`. A setting that the files leave out is None.

    The schema of a command may have `rules(values)`, what its settings rule out together, and `fits(values)`, why the
    chosen task is none for this command.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", hide_input_in_errors=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for field in cls.model_fields.values():
            if field.is_required():
                field.default = None
        cls.model_rebuild(force=True)

    def __contains__(self, name: str) -> bool:
        """Whether the files give this setting, known to the schema or not."""
        return name in self.model_fields_set

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the settings that the files leave out: for `instantiate`, results and logs."""
        return self.model_dump(exclude_unset=True)

    def replace(self, **changes: Any) -> Self:
        """The same settings with others in place of some."""
        return self.model_copy(update=changes)


def some(items: list[str] | tuple[str, ...], last: str = "or") -> str:
    """'a, b or c'."""
    items = [str(item) for item in items]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def integer(low: int, high: int = MILLION) -> Any:
    return Annotated[int, Field(ge=low, le=high), Kind(f"a whole number from {low:,} to {high:,}")]


def number(
    low: float | None = None, high: float | None = None, *, above: float | None = None, below: float | None = None
) -> Any:
    """A finite number; `low` and `high` belong to the range, `above` and `below` do not."""
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("of at least", low), ("above", above), ("at most", high), ("below", below))
        if bound is not None
    ]
    limits = Field(ge=low, le=high, gt=above, lt=below, allow_inf_nan=False)
    return Annotated[float, limits, Kind(" ".join(["a finite number", " and ".join(bounds)]).strip())]


def choice(*values: str) -> Any:
    return Annotated[Literal[values], Kind(some(values), choices=values)]


def nullable(kind: Any) -> Any:
    """`kind`, or null."""
    own = next(item for item in kind.__metadata__ if isinstance(item, Kind))
    allowed = f"{own.allowed.replace(' or ', ', ') if own.choices else own.allowed} or null"
    return Annotated[kind | None, Kind(allowed, own.choices, own.text, null=True)]


def list_of(kind: Any, example: str, empty: bool = False, distinct: bool = True) -> Any:
    """A list; without repeats if `distinct`."""
    own = next(item for item in kind.__metadata__ if isinstance(item, Kind))
    allowed = f"a list such as {example}" + (", without repeats" if distinct else "") + f", each item {own.allowed}"
    limits = [Field(min_length=0 if empty else 1), *([AfterValidator(_distinct)] if distinct else [])]
    annotated: Any = list[kind]
    for limit in limits:
        annotated = Annotated[annotated, limit]
    return Annotated[annotated, Kind(allowed, own.choices, own.text)]


def _distinct(values: list) -> list:
    if len({repr(value) for value in values}) < len(values):
        raise ValueError("an item is there twice")
    return values


def _url(text: str) -> str:
    parts = urlsplit(text)  # a ValueError for brackets and ports that cannot be
    place = parts.path if parts.scheme == "file" else parts.hostname
    if parts.scheme not in ("http", "https", "file") or not place or parts.port == 0:
        raise ValueError("no address")
    return text


Count = integer(1)
CountOrZero = integer(0)
Boolean = Annotated[bool, Kind("{name}=true or {name}=false", choices=("true", "false"))]
Path = Annotated[str, Field(pattern=rf"^{NO_CONTROL}[^\x00-\x20\x7f]{NO_CONTROL}$"), Kind("a path", text=True)]
Text = Annotated[
    str, Field(pattern=rf"^{NO_CONTROL}[^\x00-\x20\x7f]{NO_CONTROL}$"), Kind("a text that is not empty", text=True)
]
FileName = Annotated[
    str,
    Field(pattern=r"^[^\x00-\x1f\x7f/\\]*[^\x00-\x20\x7f/\\.][^\x00-\x1f\x7f/\\]*$"),
    Kind("a name without / that can be part of a path", text=True),
]
Device = Annotated[
    str,
    Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"),
    Kind("auto, cpu, cuda or cuda:<index>", choices=("auto", "cpu", "cuda", "cuda:0")),
]
Url = Annotated[
    str,
    Field(pattern=r"^[^\x00-\x20\x7f]+$"),
    AfterValidator(_url),
    Kind("an address such as https://host/folder or file:///folder", text=True),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$"), Kind("the 64 hexadecimal digits of a SHA-256", text=True)]
NoiseSeed = integer(0, 2**63 - 1)
EnvSeed = integer(0, 2**32 - 1)  # what NumPy's legacy generator takes
Workers = nullable(integer(0, 1024))
Threads = nullable(integer(1, 1024))
Share = number(0, 1)
NotNegative = number(0)
Positive = number(above=0)
#: what the policy calls an observation -> what a recording calls it
Names = Annotated[
    dict[str, str] | None,
    Field(min_length=1),
    Kind("names by names in braces, such as camera0: image (the policy's name first), or null", null=True),
]
