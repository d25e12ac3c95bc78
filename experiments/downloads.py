"""What the download commands share: their arguments, their progress bar, their errors."""
from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from diffusion_policy.common.config import ConfigError


def read_settings(arguments: list[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with the key=value arguments; "sha256", if given, in lower case.

    Raises:
        ConfigError: an argument is unreadable or unknown, or no SHA-256.
    """
    try:
        given = OmegaConf.to_container(OmegaConf.from_cli(arguments))
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot read the arguments {arguments}: {error}") from error
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}: use {', '.join(f'{key}=' for key in defaults)}")
    settings = {**defaults, **given}
    if settings["sha256"] is not None:
        settings["sha256"] = str(settings["sha256"]).lower()
        if not re.fullmatch("[0-9a-f]{64}", settings["sha256"]):
            raise ConfigError(f"sha256={settings['sha256']}: use the 64 hexadecimal digits of a SHA-256")
    return settings


def download_progress() -> Progress:
    """A bar of bytes, on stderr."""
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                    TimeRemainingColumn(), console=Console(stderr=True))


def run_command(
    arguments: list[str], description: str | None, command: Callable[[list[str]], None], expected: tuple[type[Exception], ...]
) -> int:
    """Exit status of `command`, which runs unless the arguments ask for help; `expected` errors are shown as one line."""
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
