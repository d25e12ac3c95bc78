"""Compile the native library of runtime=compiled anew.

    bac build                     into the cache
    bac build output=native       for a robot's image, into a folder that $BAC_PREBUILT names there, so that no compiler
                                  is needed; it runs on every processor of this kind of machine

Settings: output=null, a folder to ship (null: the cache).
"""

from __future__ import annotations

import sys
from pathlib import Path

from bac_workbench.console import readable_errors
from bac_workbench.settings import read_settings, wants_help
from bac_workbench.settings.kinds import Path as PathText
from bac_workbench.settings.kinds import Section, nullable

DEFAULTS = {"output": None}


class Build(Section):
    output: nullable(PathText)


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        settings = read_settings(sys.argv[1:], Build, DEFAULTS, "bac build --help")
        build(None if settings["output"] is None else Path(settings["output"]))


def build(output: Path | None) -> None:
    from bac.native import build as native

    record = native.build(None if output is None else output.absolute())
    folder = native.cache_folder() if output is None else output
    print(f"{folder / record['library']}\ncompiler: {record['compiler']}\nflags: {' '.join(record['flags'])}")
    print(f"levels: {', '.join(level.split()[0] for level in record['levels'])}")
    if output is not None:
        print(f"needs: {' '.join(record['needs']) or 'any ' + record['machine']}")
        print(f"use it with BAC_PREBUILT={output.absolute()}")
