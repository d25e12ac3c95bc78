"""What the scripts share: they start the commands of `bac`, where these are installed."""

from __future__ import annotations

import sys
from importlib import import_module


def open_door(command: str) -> int:
    """Runs `bac <command>` with this script's arguments; returns the exit status."""
    try:
        from bac_workbench.commands.main import start
    except ModuleNotFoundError as error:
        return not_installed(error)
    return start(command, sys.argv[1:])


def open_released(module: str) -> int:
    """Runs a command of the released project with this script's arguments; returns the exit status."""
    try:
        command = import_module(f"bac_workbench.released.{module}")
    except ModuleNotFoundError as error:
        return not_installed(error)
    return command.main()


def not_installed(error: ModuleNotFoundError) -> int:
    print(f"{error.name} is not installed: run `make setup`, or `pip install .` in this project", file=sys.stderr)
    return 1
