"""Flags as the released commands have them, and settings of this project behind them; errors fit on one screen."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hydra.errors import HydraException

from bac.similarity import METRICS
from bac_workbench.command_words import typed
from bac_workbench.settings import meant
from bac_workbench.settings.check import check
from bac_workbench.settings.composition import composed, config_folder
from bac_workbench.settings.launch import check_command_line
from bac_workbench.settings.overrides import parsed
from diffusion_policy.common.config import ConfigError


class Flags(argparse.ArgumentParser):
    """A parser whose errors are a user's, with no abbreviated flags.

    What follows the flags as <setting>=<value> goes to this project's command.
    """

    def __init__(self, program: str, description: str):
        super().__init__(
            prog=program,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def settings_of(self, command: str) -> None:
        text = f"settings of {typed(command)}, such as weights=raw; they come last"
        self.add_argument("settings", nargs="*", metavar="setting=value", help=text)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        return self.parse_intermixed_args(list(arguments))

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: --"):
            word = message.split()[2].partition("=")[0]
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            message = f"there is no flag {word}{meant(word, known)}"
        raise ConfigError(f"{message}\n{self.prog} --help lists the flags")


def whole(low: int, what: str) -> Callable[[str], int]:
    """A reader of whole numbers from `low` on; `what` they are is in the message."""

    def read(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}: use a whole number from {low} on")
        return int(text)

    return read


def several(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A reader of a comma-separated list without repeats."""

    def read_all(text: str) -> list[Any]:
        return list(dict.fromkeys(read(item.strip()) for item in text.split(",")))

    return read_all


def one_of(values: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(f"use one of {', '.join(values)}{meant(text, values)}")
        return text

    return read


metric = one_of(tuple(METRICS))


def assigned(name: str, text: object) -> str:
    """name=text in Hydra's grammar, with the quotes that the characters of the text need."""
    plain = f"{name}={text}"
    try:
        (override,) = parsed([plain])
        if override.value() == str(text):
            return plain
    except HydraException:
        pass
    return f'{name}="' + str(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def settings_from(command: str, overrides: Sequence[str]) -> Any:
    """The checked settings of a command of this project.

    Raises:
        ConfigError: lists all that are wrong.
    """
    overrides = list(overrides)
    check_command_line(overrides, command)
    with config_folder():
        cfg = composed(overrides, command, None)
    return check(cfg, command, overrides)


def name_command(command: str, overrides: Sequence[str]) -> None:
    """Prints the command of this project that does the same, to paste into a shell."""
    print(f"The same with this project's own command:\n    {typed(command)} {shlex.join(overrides)}")
