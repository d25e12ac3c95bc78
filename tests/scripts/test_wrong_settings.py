"""Wrong command lines: one screen that names the setting, its value and what is allowed; nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bac_workbench.command_words import WORDS
from bac_workbench.settings.arguments import read_arguments, read_positional
from bac_workbench.settings.launch import check_command_line
from diffusion_policy.common.config import ConfigError
from tests.scripts.wrong_settings import EVAL
from tests.scripts.wrong_settings_of_others import OTHERS, TRAIN

ROOT = Path(__file__).resolve().parents[2]
# script -> its command of `bac`
SCRIPTS = {path.stem: WORDS[path.stem] for path in sorted((ROOT / "scripts").glob("*.py")) if path.stem in WORDS}

LINES = [
    ("eval", f"task=pusht_lowdim{'' if line[0] == '|' else ' ' if '|' not in line else '|'}{line}", says)
    for line, says in EVAL
]
LINES += [("train", f"task=pusht_lowdim {line}", says) for line, says in TRAIN] + OTHERS


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def one_screen(message: str) -> str:
    lines = message.splitlines()
    assert len(lines) <= 15 and all(len(line) < 700 for line in lines) and "Traceback" not in message
    return message


@pytest.mark.parametrize(("command", "line", "says"), LINES, ids=[f"{command} {line}" for command, line, _ in LINES])
def test_a_wrong_setting_is_named_with_what_is_allowed(command, line, says):
    with pytest.raises(ConfigError) as error:
        check_command_line(line.split("|") if "|" in line else line.split(), command)
    message = one_screen(str(error.value))
    assert says in message
    names = [
        part.partition("=")[0].strip("+~-'\"")
        for part in line.replace("|", " ").split()
        if not part.startswith("task=") or len(line.split()) == 1
    ]
    assert any(name in message for name in names) or not names


CONVERT = {"checkpoint": None, "output": None, "weights": "ema", "half": True, "overwrite": False}
DATA = {"task": None, "verify": False, "data_dir": "data", "url": None, "sha256": None}
DOWNLOAD = {
    "task": None,
    "name": "latest.ckpt",
    "train": 0,
    "checkpoint_dir": "checkpoint",
    "url": None,
    "sha256": None,
}
PAIRS = [
    ("convert_checkpoint", CONVERT, "", "checkpoint=<path> is missing"),
    ("convert_checkpoint", CONVERT, "a.ckpt", "key=value"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=", "a path"),
    ("convert_checkpoint", CONVERT, "checkpoint=null output=b", "a path"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b weights=emma", "did you mean ema?"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b half=1", "half=true or half=false"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b half=[", "half=true or half=false"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b overwrite=please", "overwrite=true"),
    ("convert_checkpoint", CONVERT, "checkpoint=a ouput=b", "did you mean output?"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b a.b=1", "unknown setting a.b"),
    ("convert_checkpoint", CONVERT, "--checkpoint=a output=b", "key=value"),
    ("download_data", DATA, "task=pusht_lowdim verify=1", "verify=true or verify=false"),
    ("download_data", DATA, "task=pusht_lowdim url=abc", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=ftp://x/y", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://[::1", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://host:port/", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://host:99999/", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim data_dir=", "a path"),
    ("download_data", DATA, "task=pusht_lowdim data_dir=null", "a path"),
    ("download_data", DATA, "task=pusht_lowdim sha256=123", "64 hexadecimal digits"),
    ("download_data", DATA, "tsak=x", "did you mean task?"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph train=3", "0, 1 or 2"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph train=1.0", "0, 1 or 2"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph train=true", "0, 1 or 2"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph url=x", "https://"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph name=", "not empty"),
    ("download_checkpoint", DOWNLOAD, "nmae=best", "did you mean name?"),
]


@pytest.mark.parametrize(("command", "defaults", "line", "says"), PAIRS, ids=[f"{item[0]} {item[2]}" for item in PAIRS])
def test_arguments_of_commands_without_hydra(command, defaults, line, says):
    with pytest.raises(ConfigError) as error:
        read_arguments(line.split(), command, defaults)
    assert says in one_screen(str(error.value))


@pytest.mark.parametrize("arguments", [[], ["a", "b"], [""], ["--force", "a"], ["--all"]])
def test_a_command_with_one_folder_takes_exactly_one(arguments):
    with pytest.raises(ConfigError, match="usage: bac compare RESULTS_FOLDER"):
        read_positional(arguments, "compare", ("RESULTS_FOLDER",))
    assert read_positional(["x"], "compare", ("RESULTS_FOLDER",)) == ["x"] and read_positional([], "demo", ()) == []


def test_all_wrong_settings_are_listed_at_once():
    line = "task=pusht_lowdim cache=bca eval.n_tests=5 eval.n_envs=0 runtime=complied seed=-1"
    with pytest.raises(ConfigError) as error:
        check_command_line(line.split(), "eval")
    lines = one_screen(str(error.value)).splitlines()
    assert lines[0] == "5 settings are wrong" and len(lines) == 6
    assert all(any(item in line for line in lines) for item in line.split()[1:])


def test_very_many_wrong_settings_still_fit_on_a_screen():
    line = ["task=pusht_lowdim", *(f"+nothing{index}=1" for index in range(40))]
    with pytest.raises(ConfigError, match="and 28 more") as error:
        check_command_line(line, "eval")
    one_screen(str(error.value))


def start(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("eval", ["task=pusht_lowdim", "eval.n_test=-1", "runtime=complied"], "did you mean compiled?"),
        ("train", ["task=pusht_lowdim", "training.batch_size=-4"], "from 1"),
        ("benchmark", ["task=pusht_lowdim", "batch=0"], "[1,28]"),
        ("make_demos", ["task=block_pushing", "seed_start=-5"], "from 0"),
        ("convert_checkpoint", ["checkpoint=a", "half=maybe"], "output=<path> is missing"),
        ("download_data", ["task=pusht_lowdim", "url=abc"], "https://host"),
        ("compare", ["nowhere"], "there is no folder nowhere"),
        ("demo", ["task=pusht_lowdim"], "no arguments"),
    ],
)
def test_the_scripts_end_with_status_one_and_one_screen(script, arguments, says):
    result = start(script, *arguments)
    assert result.returncode == 1 and says in one_screen(result.stderr) and not result.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_usage_settings_and_examples(script):
    result = start(script, "--help")
    assert result.returncode == 0 and not result.stderr
    assert f"bac {SCRIPTS[script]}" in result.stdout and len(result.stdout.splitlines()) < 80
