"""What the download commands share: their arguments, their progress bar, their errors."""
from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from diffusion_policy.common.config import ConfigError


def read_settings(arguments: list[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with the key=value arguments; "sha256", if given, in lower case.

    A default decides how a value is read: true or false, a whole number, else text as it stands (20240601 and 1e5 are names of
    folders); null is None where the default is.

    Raises:
        ConfigError: an argument is unreadable or unknown, or no SHA-256.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        key, separator, text = argument.partition("=")
        if not separator:
            raise ConfigError(f"cannot read the argument {argument!r}: settings are of the form <name>=<value>")
        if key not in defaults:
            raise ConfigError(f"unknown setting {key}: use {', '.join(f'{known}=' for known in defaults)}")
        given[key] = _value(key, text, defaults[key])
    settings = {**defaults, **given}
    if settings["sha256"] is not None:
        settings["sha256"] = settings["sha256"].lower()
        if not re.fullmatch("[0-9a-f]{64}", settings["sha256"]):
            raise ConfigError(f"sha256={settings['sha256']}: use the 64 hexadecimal digits of a SHA-256")
    return settings


def _value(key: str, text: str, default: Any) -> Any:
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key}={text}: use {key}=true or {key}=false")
        return text.lower() == "true"
    if isinstance(default, int):
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise ConfigError(f"{key}={text}: use a whole number, such as {key}={default}")
        return int(text)
    if default is None and text in ("null", ""):
        return None
    if not text.strip() or text == "null" or not text.isprintable():
        raise ConfigError(f"{key}={text}: give a text" + (f", such as {key}={default}" if default else "") + ", or leave it out")
    return text


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
