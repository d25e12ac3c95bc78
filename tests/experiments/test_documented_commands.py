"""Every command in the README and the guides has settings that exist."""

from __future__ import annotations

import re
import shlex

import pytest
import torch

from bac_workbench.command_words import typed
from bac_workbench.commands.serve import with_task
from bac_workbench.settings.launch import check_command_line
from tests.conftest import ROOT
from tests.experiments.composed_settings import HYDRA

COMMANDS = {form: command for command in HYDRA for form in (typed(command), f"python scripts/{command}.py")}


def filled_in(text: str, variables: dict[str, str]) -> str:
    """$name and ${name} by their values, as far as they are known."""
    return re.sub(r"\$\{?(\w+)\}?", lambda match: variables.get(match.group(1), match.group()), text)


def documented() -> list[tuple[str, str]]:
    """(command, arguments) of every command in the README and the guides, with the variables that their blocks set."""
    commands = []
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for block in re.findall(r"```bash\n(.*?)```", "\n".join(page.read_text() for page in pages), re.DOTALL):
        variables: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            if assigned := re.match(r"(\w+)=(?:\"([^\"]*)\"|'([^']*)'|(\S*))", line.strip()):
                variables[assigned.group(1)] = next(value for value in assigned.groups()[1:] if value is not None)
            if started := re.match(r"(python scripts/\w+\.py|bac(?: [a-z][a-z-]*)+) ([^#]*)", line.strip()):
                commands.append((COMMANDS.get(started.group(1)), filled_in(started.group(2).strip(), variables)))
    return [(command, text) for command, text in commands if command is not None]


@pytest.mark.parametrize("command, line", documented())
def test_every_documented_command_passes(command, line):
    if not torch.cuda.is_available():  # the same command for this machine
        line = line.replace("device=cuda", "device=cpu").replace("training.precision=tf32", "training.precision=fp32")
    arguments = shlex.split(line)
    check_command_line(with_task(arguments) if command == "serve" else arguments, command)


def test_the_documentation_has_commands():
    assert len(documented()) > 8
