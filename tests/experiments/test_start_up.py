"""What the command line answers by itself: no torch, no diffusers and no simulator is imported for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bac_workbench.command_words import WORDS
from bac_workbench.commands.main import COMMANDS
from tests.conftest import ROOT

HEAVY = ("torch", "diffusers", "scipy", "matplotlib", "zarr", "pymunk", "mujoco", "pybullet", "robosuite")
# The last line of output names what was imported, also where the command ends with an error.
RUN = f"""
import atexit, sys
atexit.register(lambda: print("imported:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))
from bac_workbench.commands.main import run
sys.exit(run(sys.argv[1:]))
"""


def bac(line: str, folder=ROOT) -> tuple[int, str, list[str]]:
    """(exit status, output, heavy modules that were imported)."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *line.split()], capture_output=True, text=True, cwd=folder, timeout=120
    )
    *errors, last = done.stderr.strip().splitlines()
    assert last.startswith("imported:"), done.stderr
    return done.returncode, "\n".join([done.stdout, *errors]), last.split()[1:]


@pytest.mark.parametrize("command", WORDS)
def test_help_is_light(command):
    status, output, heavy = bac(f"{WORDS[command]} --help")
    assert status == 0 and heavy == [] and f"bac {WORDS[command]}" in output


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("eval task=pusht_highdim", "did you mean pusht_lowdim?"),
        ("train task=pusht_highdim", "did you mean pusht_lowdim?"),
        ("eval task=pusht_lowdim cach=bac", "did you mean cache?"),
        ("eval task=pusht_lowdim eval.n_tst=5 runtime=complied", "did you mean compiled?"),
        ("benchmark task=pusht_lowdim methods=[fulll]", "method 'fulll' is not known"),
        ("profile task=pusht_lowdim sampler=dim16", "did you mean ddim16?"),
        ("demo fast", "no arguments"),
        ("build outptu=x", "did you mean output?"),
        ("build --output native", "arguments have the form key=value"),
        ("compare nowhere", "there is no folder nowhere"),
    ],
)
def test_wrong_command_lines_are_answered_before_anything_heavy_is_imported(line, says, tmp_path):
    status, output, heavy = bac(line, tmp_path)
    assert status == 1 and says in output and heavy == [] and "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_the_overview_names_every_command_with_a_line():
    status, output, heavy = bac("--help")
    assert status == 0 and heavy == []
    assert all(f"  bac {WORDS[command]} " in output and line in output for command, (_, line) in COMMANDS.items())
    assert COMMANDS.keys() == WORDS.keys()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evla task=pusht_lowdim", "there is no command 'evla': use bac eval"),
        ("data", "data needs a second word: use bac data inspect or bac data download or bac data convert-actions"),
        ("checkpoint dowload task=can_ph", "use bac checkpoint download"),
        ("--evaluate", "bac --help lists them"),
    ],
)
def test_a_word_that_is_no_command_is_answered_with_those_that_are(line, says):
    status, output, heavy = bac(line)
    assert status == 2 and says in output and heavy == []


def test_versions_name_all_that_decides_what_a_policy_does():
    status, output, _ = bac("--version")
    assert status == 0
    assert [line.split()[0] for line in output.split("\n") if line] == [
        "bac-diffusion",
        "bac-workbench",
        "torch",
        "diffusers",
        "Python",
    ]
    assert "native sources" in output


def test_an_evaluation_starts_without_torchs_compiler():
    """Diffusers would import it; the classes of its models are marked for it all the same, when they are imported."""
    code = (
        "import sys; import bac_workbench.evaluation.evaluate; print('torch._dynamo' in sys.modules); "
        "from torch._dynamo import trace_rules; from diffusers.models.attention import BasicTransformerBlock as Block; "
        "print(id(Block) in trace_rules._allowed_callable_ids)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.split() == ["False", "True"], done.stderr
