"""Which level of the native library runs: that of the most demanding instruction sets that are here, or a lower one.

$BAC_LEVEL names one (baseline, avx2, avx512, avx512_bf16) to compare them or to find an error; it is never chosen for
a processor that lacks it.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from bac.errors import Unavailable
from bac.native.structs import FORMATS


@dataclass(frozen=True)
class Level:
    """A level of a loaded library.

    Attributes:
        number: in the library.
        formats: of weights that it multiplies, see `bac.native.structs.FORMATS`.
    """

    number: int
    name: str
    formats: frozenset[str]


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
