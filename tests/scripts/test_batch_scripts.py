"""The scripts of shs/: their commands are right, and together they make every row of docs/results."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bac_workbench.settings.caches import make_cache
from bac_workbench.settings.composition import config_folder
from bac_workbench.settings.launch import check_command_line, jobs_of
from tests.conftest import ROOT
from tests.experiments.composed_settings import checked

RESULTS = ROOT / "docs" / "results"
SCRIPTS = (
    "eval_pusht.sh",
    "eval_multistage.sh",
    "eval_robomimic.sh",
    "frontier.sh",
    "latency.sh",
    "speed.sh",
    "tune.sh",
    "flow.sh",
)
#: stands for the interpreter: writes its arguments down, one line a call, separated by tabs
RECORDER = '#!/usr/bin/env bash\n(IFS=$\'\\t\'; echo "$*" >> "$CALLS")\n[ "$1" != -c ]\n'


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> dict[str, list[list[str]]]:
    """Script -> the arguments of every Python that it starts."""
    folder = tmp_path_factory.mktemp("shs")
    recorder = folder / "python"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    found = {}
    for script in SCRIPTS:
        env = {**os.environ, "PYTHON": str(recorder), "CALLS": str(folder / script)}
        subprocess.run(["bash", str(ROOT / "shs" / script)], env=env, check=True, timeout=60, cwd=folder)
        found[script] = [line.split("\t") for line in (folder / script).read_text().splitlines()]
    return found


def test_every_command_of_the_scripts_is_right(calls):
    """Each kind of command once: with the first of its tasks, values and seeds."""
    kinds = {}
    for call in (call for made in calls.values() for call in made):
        command, settings = Path(call[0]).stem, dict(part.split("=", 1) for part in call if "=" in part)
        if command in ("eval", "benchmark", "tune"):
            first = {name: value if value[0] == "[" else value.partition(",")[0] for name, value in settings.items()}
            kinds.setdefault(
                (command, *first, first.get("cache")), [f"{name}={value}" for name, value in first.items()]
            )
    for (command, *_), arguments in kinds.items():
        check_command_line((["-m"] if command == "eval" else []) + arguments, command)
    assert len(kinds) > 10


@pytest.mark.parametrize("script, stored", [("eval", "comparison"), ("frontier", "frontier")])
def test_every_evaluated_row_has_a_command(calls, script, stored):
    for path in sorted(RESULTS.glob(f"*_{stored}.json")):
        task, rows = path.name.removesuffix(f"_{stored}.json"), json.loads(path.read_text())["rows"]
        made = {
            row_of(task, job)
            for name, lines in calls.items()
            if name.startswith(script)
            for job in jobs_for(task, lines)
        }
        assert {(row["method"], row["sampler"]) for row in rows} <= made, task


def test_every_timed_row_has_a_command(calls):
    for path in sorted(RESULTS.glob("*_benchmark_*_batch*.json")):
        task, _, kind = path.stem.partition("_benchmark_")
        kept_apart = ("frontier", "latency", "flow")
        table = next((name for name in kept_apart if task.endswith(f"_{name}")), None)
        tables = {f"{table}.sh"} if table else set(SCRIPTS) - {f"{name}.sh" for name in kept_apart}
        task, device, batch = task.removesuffix(f"_{table}"), kind.split("_")[0], kind.rpartition("batch")[2]
        methods = set()
        for script in tables:
            for call in calls[script]:
                given = dict(part.split("=", 1) for part in call if "=" in part)
                if call[0] == "scripts/benchmark.py" and given["task"] == task and given.get("batch", "1") == batch:
                    methods |= set(given["methods"].strip("[]").split(","))
        rows = {(row["method"], row["sampler"]) for row in json.loads(path.read_text())}
        own = "flow10" if table == "flow" else "ddpm100"
        named = {tuned(task) if method == "tuned" else split(method, own) for method in methods}
        missing = rows - named - {("full_all_tokens", own)}  # which every benchmark measures
        assert methods and not missing, (path.name, device, missing)


def jobs_for(task: str, calls: list[list[str]]) -> set[tuple[str, ...]]:
    """The overrides of each evaluation of a task, without the seed."""
    lines = [call[2:] for call in calls if call[:2] == ["scripts/eval.py", "-m"] and f"task={task}" in call]
    with config_folder():
        jobs = [job for line in lines for job in jobs_of([part for part in line if not part.startswith("seed=")])]
    return {tuple(part for part in job if not part.startswith("output_dir=")) for job in jobs}


def row_of(task: str, job: tuple[str, ...]) -> tuple[str, str]:
    """Method and sampler of what an evaluation stores."""
    if "cache=tuned" in job:
        return tuned(task)
    sampler = next((part.partition("=")[2] for part in job if part.startswith("sampler=")), "ddpm100")
    return label_of(tuple(part for part in job if part.startswith("cache"))), sampler


@functools.lru_cache
def label_of(cache: tuple[str, ...]) -> str:
    return make_cache(OmegaConf.to_container(checked("eval", *cache).cache)).label


def split(method: str, own: str = "ddpm100") -> tuple[str, str]:
    name, _, sampler = method.partition("@")
    return name, sampler or own


def tuned(task: str) -> tuple[str, str]:
    return split(json.loads((ROOT / "assets" / task / "tuned.json").read_text())["method"])
