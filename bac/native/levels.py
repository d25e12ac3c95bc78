"""Which level of the native library runs: that of the most demanding instruction sets that are here, or a lower one.

$BAC_LEVEL names one (see docs/reference/command-line.md) to compare them or to find an error; it is never chosen for
a processor that lacks it.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from bac.errors import Unavailable
from bac.native.structs import FORMATS

#: format that the blocks' weights are rounded to, by precision; without one it is float or half, whichever is exact
ROUNDED = {"bf16": "bfloat", "int8": "byte"}
_UNITS = {"bf16": "AVX512-BF16 or ARM's BF16", "int8": "VNNI (AVX-VNNI, AVX512-VNNI) or ARM's dot products"}


@dataclass(frozen=True)
class Level:
    """A level of a loaded library.

    Attributes:
        number: in the library.
        formats: of weights that it multiplies on this processor, see `bac.native.structs.FORMATS`.
    """

    number: int
    name: str
    formats: frozenset[str]

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which the native loop computes at this level on this processor."""
        return ("fp32", *(precision for precision, form in ROUNDED.items() if form in self.formats))


def usable_levels(library: ctypes.CDLL) -> list[Level]:
    """Those of the library that this processor and system can run, the most demanding last."""
    found: list[Level] = []
    number = 0
    while (name := library.bac_level_name(number)) is not None:
        if library.bac_level_usable(number):
            formats = (form for form, code in FORMATS.items() if library.bac_level_format(number, code))
            found.append(Level(number, name.decode(), frozenset(formats)))
        number += 1
    return found


def check_format(precision: str, level: Level) -> None:
    """Raises:
    Unavailable: the level cannot compute in this precision on this processor.
    """
    if precision in level.precisions:
        return
    instead = "use precision=fp32" + (", or runtime=planned for bf16" if precision == "bf16" else "")
    raise Unavailable(
        f"precision={precision} of runtime=compiled needs a processor with {_UNITS[precision]}, this runs at level "
        f"{level.name}: {instead}"
    )


def choose_level(library: ctypes.CDLL) -> Level:
    """The level named by $BAC_LEVEL, or the most demanding one.

    Raises:
        Unavailable: $BAC_LEVEL names none that can run here.
    """
    levels = usable_levels(library)
    wanted = os.environ.get("BAC_LEVEL")
    if not wanted:
        return levels[-1]
    for level in levels:
        if level.name == wanted:
            return level
    raise Unavailable(
        f"BAC_LEVEL={wanted} cannot run here: use {', '.join(level.name for level in levels)}, or unset it"
    )
