"""The command line of the package: `python -m bac COMMAND`."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pathlib import Path

from bac.errors import UserError
from bac.native import build as native


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status. An error that is about what was asked for is one line on stderr."""
    parser = argparse.ArgumentParser(
        "python -m bac", description="Block-wise adaptive caching for Transformer Diffusion Policies."
    )
    parser.add_argument(
        "--version", action="store_true", help="print the version of the package and of the native library's sources"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_build(commands)
    options = parser.parse_args(arguments)
    if options.version:
        print(f"bac {package_version()}, native sources {native.sources_digest()[:12]}")
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    try:
        return options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def add_build(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "build",
        help="compile the native library",
        description="Compiles the native library of runtime=compiled anew: into the cache, or into a folder that is "
        "shipped with a robot's image and named by $BAC_PREBUILT there, so that no compiler is needed.",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="a folder to ship; the cache when left out")
    parser.set_defaults(run=build)


def build(options: argparse.Namespace) -> int:
    record = native.build(None if options.output is None else options.output.absolute())
    folder = native.cache_folder() if options.output is None else options.output
    print(f"{folder / record['library']}\ncompiler: {record['compiler']}\nflags: {' '.join(record['flags'])}")
    print(f"levels: {', '.join(level.split()[0] for level in record['levels'])}")
    if options.output is not None:
        print(f"needs: {' '.join(record['needs']) or 'any ' + record['machine']}")
        print(f"use it with BAC_PREBUILT={options.output.absolute()}")
    return 0


def package_version() -> str:
    try:
        return metadata.version("bac-diffusion")
    except metadata.PackageNotFoundError:
        return "(run from its sources, not installed)"
