"""What the scripts share: they start the commands of `bac`, where these are installed."""

from __future__ import annotations

import sys


def open_door(command: str) -> int:
    """Runs `bac <command>` with this script's arguments; returns the exit status."""
    try:
        from bac_workbench.commands.main import start
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed: run `make setup`, or `pip install .` in this project", file=sys.stderr)
        return 1
    return start(command, sys.argv[1:])
