"""What the pages tell a user to type works: Python runs, shell parses, commands are accepted."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from bac_workbench.commands.serve import with_task
from bac_workbench.settings.launch import check_command_line
from tests.docs.pages import PAGES, ROOT, blocks, name_of

# Words after `bac` -> the file in config/ whose settings the command takes.
HYDRA = {
    "collect": "collect",
    "eval": "eval",
    "check": "check",
    "tune": "tune",
    "benchmark": "benchmark",
    "profile": "profile_blocks",
    "figures": "figures",
    "stability": "stability",
    "calibrate": "calibrate",
    "serve": "serve",
    "train": "train",
    "demos": "make_demos",
    "data convert-actions": "convert_actions",
}
OTHERS = (
    "demo",
    "compare",
    "dashboard",
    "report",
    "reproduce",
    "doctor",
    "build",
    "data download",
    "data inspect",
    "checkpoint download",
    "checkpoint convert",
    "checkpoint push",
)
# These guides run in folders of their own, see test_library_guide.py and test_new_task_guide.py, or need a server, see
# test_examples.py.
ELSEWHERE = ("python-api.md", "new-task.md", "serve.md")
RUNNABLE = [page for page in PAGES if blocks(page, "python") and page.name not in ELSEWHERE]


def commands(page: Path) -> list[str]:
    """What follows `bac` in the shell blocks of a page, with the variables that their blocks set."""
    typed = []
    for block in blocks(page, "bash"):
        variables: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            if assigned := re.match(r"(\w+)=(?:\"([^\"]*)\"|'([^']*)'|(\S*))", line.strip()):
                variables[assigned[1]] = next(value for value in assigned.groups()[1:] if value is not None)
            if started := re.match(r"bac ([^#]*)", line.strip()):
                typed.append(with_variables(started[1], variables).strip())
    return typed


def with_variables(text: str, variables: dict[str, str]) -> str:
    """`text` with $name and ${name} replaced; names that are not set stay."""
    return re.sub(r"\$\{?(\w+)\}?", lambda name: variables.get(name[1], name[0]), text)


def mentioned(page: Path) -> list[str]:
    """Commands with settings in the running text of a page; those with a <place to fill> or ... are left out."""
    spans = re.findall(r"`bac ([^`<]+=[^`<]+)`", page.read_text(encoding="utf-8"))
    return [span.strip() for span in spans if "..." not in span]


TRAINING = sorted(ROOT.glob("checkpoint/*/ddpm100/TRAINING.md"))
COMMANDS = sorted({(name_of(page), line) for page in PAGES for line in commands(page) + mentioned(page)})
COMMANDS += [(name_of(page), line) for page in TRAINING for line in mentioned(page)]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_python_runs_in_a_checkout(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for number, snippet in enumerate(blocks(page, "python"), start=1):
        exec(compile(snippet, f"{name_of(page)}, snippet {number}", "exec"), names)
    if "action" in names:
        assert torch.isfinite(names["action"]).all()


def test_the_readme_has_ten_lines_that_run():
    (snippet,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=name_of)
def test_shell_parses(page):
    for block in blocks(page, "bash"):
        ran = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page, line", COMMANDS)
def test_every_command_is_accepted(page, line):
    words = next((words for words in (*HYDRA, *OTHERS) if f"{line} ".startswith(f"{words} ")), None)
    assert words is not None, f"{page} has bac {line}, which is no command"
    if words in HYDRA:
        if not torch.cuda.is_available():  # the same command for this machine
            line = line.replace("device=cuda", "device=cpu").replace(
                "training.precision=tf32", "training.precision=fp32"
            )
        arguments = shlex.split(line.removeprefix(words))
        check_command_line(with_task(arguments) if words == "serve" else arguments, HYDRA[words])


def test_the_documentation_has_commands():
    assert len(COMMANDS) > 25
    used = {line.split()[0] for _, line in COMMANDS}
    assert used >= {words.split()[0] for words in (*HYDRA, *OTHERS)} - {"build"}  # its example is for another machine
