"""What the download commands share: their arguments, their progress bar, their errors."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from diffusion_policy.common.config import ConfigError


def download_progress() -> Progress:
    """A bar of bytes, on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def run_command(
    arguments: list[str],
    description: str | None,
    command: Callable[[list[str]], None],
    expected: tuple[type[Exception], ...],
) -> int:
    """Exit status of `command`, which runs unless the arguments ask for help; `expected` errors are shown as one
    line."""
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(description)
        return 0
    try:
        command(arguments)
    except (ConfigError, OSError, *expected) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 0
