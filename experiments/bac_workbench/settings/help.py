"""What --help prints: the description of a command, with examples, its choices and its settings."""

from __future__ import annotations

import re
import textwrap

from bac_workbench.command_words import typed
from bac_workbench.locations import CONFIG

WIDTH = 120


def wants_help(arguments: list[str]) -> bool:
    return any(argument in ("-h", "--help") for argument in arguments)


def usage(command: str, description: str | None) -> str:
    """Description, choices, and the settings with their defaults and comments, as in config/<command>.yaml."""
    text = (CONFIG / f"{command}.yaml").read_text()
    defaults, settings = parts(text)
    example = re.search(r"^# (bac .*)$", text, re.MULTILINE)
    lines = [(description or "").strip(), "", f"usage: {typed(command)} task=<task> [<setting>=<value> ...]"]
    if example:
        lines += [f"example: {example.group(1)}"]
    lines += ["", "Choices:"]
    for group in re.findall(r"^  - (?!_self_|override)(\w+)", defaults, re.MULTILINE):
        options = ", ".join(sorted(path.stem for path in (CONFIG / group).glob("*.yaml")))
        lines += textwrap.wrap(f"{group}= {options}", WIDTH, initial_indent="  ", subsequent_indent="      ")
    lines += [
        "",
        "Settings with their defaults; what is indented is written with its group, such as <group>.<setting>=<value>:",
    ]
    lines += [f"  {line}".rstrip() for line in settings.strip().splitlines()]
    lines += [
        "",
        "Settings of a choice, such as task.environment.max_steps=..., are in config/<choice>/*.yaml.",
        "A text with = or , needs two kinds of quotes: 'checkpoint=\"epoch=0650.ckpt\"'.",
    ]
    return "\n".join(lines)


def parts(text: str) -> tuple[str, str]:
    """The defaults list and the settings of a config file; what is for Hydra alone is left out."""
    blocks = re.split(r"^(?=\w+:)", text, flags=re.MULTILINE)
    defaults = next((block for block in blocks if block.startswith("defaults:")), "")
    settings = [block for block in blocks[1:] if not block.startswith(("defaults:", "hydra:"))]
    return defaults, "".join(settings)
