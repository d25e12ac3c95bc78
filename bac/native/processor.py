"""Which processor this is, and what code compiled for another one needs of it."""

from __future__ import annotations

import functools
import platform
from collections.abc import Iterable
from pathlib import Path

# Instruction sets of x86 that compilers use for plain C++, by their macro, and the flag of /proc/cpuinfo. All others
# (rdseed, clwb, amx, ...) are used only by code that asks for them by name, which the engine does not.
_FLAGS = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4_1": "sse4_1",
    "sse4_2": "sse4_2",
    "sse4a": "sse4a",
    "crc32": "sse4_2",
    "popcnt": "popcnt",
    "lzcnt": "abm",
    "abm": "abm",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "movbe": "movbe",
    "lahf_sahf": "lahf_lm",
    "avx": "avx",
    "avx2": "avx2",
    "f16c": "f16c",
    "fma": "fma",
    "fma4": "fma4",
    "gfni": "gfni",
    "avxvnni": "avx_vnni",
    "avxifma": "avx_ifma",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512vp2intersect": "avx512_vp2intersect",
    "avx512fp16": "avx512_fp16",
}
_FAMILIES = (
    "sse",
    "avx",
    "fma",
    "bmi",
    "xop",
    "tbm",
    "apx",
    "arm_feature",
)  # a macro of these that is not listed above is not known


@functools.cache
def _cpuinfo() -> tuple[str, frozenset[str]]:
    """(what -march=native depends on, feature flags); no flags where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}", frozenset()
    chosen = sorted(
        {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part", "CPU implementer"))}
    )
    flags = [set(line.partition(":")[2].split()) for line in chosen if line.startswith(("flags", "Features"))]
    return "\n".join([platform.machine(), *chosen]), frozenset(set.intersection(*flags)) if flags else frozenset()


def identity() -> str:
    """The machine, processor model and features."""
    return _cpuinfo()[0]


def features() -> frozenset[str]:
    """Features that every core of this processor has, by the system's names."""
    return _cpuinfo()[1]


def needed(added_macros: Iterable[str]) -> tuple[set[str], set[str]]:
    """Features that code needs when its compiler flags add these predefined macros: (known by name, not known).

    Code with unknown ones is safe only on the very kind of processor it was compiled on.
    """
    words = {macro.strip("_").lower() for macro in added_macros}
    unknown = {word for word in words if word not in _FLAGS and word.startswith(_FAMILIES)}
    return {_FLAGS[word] for word in words if word in _FLAGS}, unknown
