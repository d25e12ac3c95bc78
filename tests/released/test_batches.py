"""shs/get_steps and shs/benchmark: what is here is done, what fails does not stop the rest, and the tables."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bac_workbench.released import benchmark_command, eval_command, steps_batch, steps_command
from bac_workbench.released.table import Row, pool, table, write_tables
from tests.conftest import ROOT
from tests.released.conftest import BEST, EVAL, FOLDER, PROFILE, write_original

BENCHMARKS = [
    "--device",
    "cpu",
    "--skip_video",
    "--task",
    "pusht_lowdim,lift_ph",
    "--steps",
    "3",
    "--num_bu_blocks",
    "2",
]
COMMANDS = {"eval_command": eval_command, "steps_command": steps_command}


def run_here(module: str, arguments: Sequence[str], log: Path) -> str | None:
    """`run_apart` in this process, which saves the start of another."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        COMMANDS[module].main(arguments)
    except SystemExit as error:
        return f"exit status {error.code}"
    return None


@pytest.fixture
def in_one_process(monkeypatch):
    for module in (benchmark_command, steps_batch):
        monkeypatch.setattr(module, "run_apart", run_here)


@pytest.fixture
def tree(place) -> Path:
    """Two trainings of Push-T, of which the second's last checkpoint is damaged."""
    for train in (0, 1):
        write_original(Path("checkpoint", FOLDER.format("low_dim/pusht", train), BEST), seed=train)
    Path("checkpoint", FOLDER.format("low_dim/pusht", 1), "latest.ckpt").write_bytes(b"no checkpoint")
    return place


def rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_here_is_benchmarked_and_the_rest_is_listed(tree, in_one_process, capsys):
    given = [*BENCHMARKS, "--seeds", "0,1", "--cache_mode", "original,optimal", *EVAL, *PROFILE[-3:]]
    assert benchmark_command.main(given) == 1  # one cell has failed
    said = capsys.readouterr().out
    assert (
        "pusht_lowdim train_1 avg, BAC cosine k=2 S=3 failed" in said
        and "no checkpoint here: pusht_lowdim train_0 avg" in said
    )
    assert "lift_ph train_0 max" in said
    results = rows("results/benchmark/results.csv")
    assert list(results[0]) == ["Method", "Steps", "Task", "Seed", "CheckpointType", "SuccessRate", "FLOPs", "Speedup"]
    found = [(row["Method"], row["Steps"], row["Seed"], row["CheckpointType"]) for row in results]
    bac = "BAC cosine k=2"
    assert found == [
        ("Full", "-", "0", "max"),
        ("Full", "-", "1", "max"),
        (bac, "3", "0", "max"),
        (bac, "3", "1", "max"),
    ]
    folder = Path("results/benchmark/Full/pusht_lowdim/seed1_max")
    assert json.loads((folder / "eval_results.json").read_text())["mean_score"] == pytest.approx(
        float(results[1]["SuccessRate"]), abs=1e-4
    )
    pooled = rows("results/benchmark/summary.csv")
    assert [row["Method"] for row in pooled] == ["Full", "BAC cosine k=2"]
    rates = [float(row["SuccessRate"]) for row in results[:2]]
    assert float(pooled[0]["MaxSuccessRate"]) == pytest.approx(sum(rates) / 2, abs=1e-4)
    assert pooled[0]["AvgSuccessRate"] == "-"
    assert "bac eval -m task=pusht_lowdim train=0,1 checkpoint_type=max,avg cache=full" in said

    before = (folder / "eval_results.json").stat().st_mtime_ns
    assert benchmark_command.main(given) == 1
    assert (folder / "eval_results.json").stat().st_mtime_ns == before  # what is done is not done again


def test_without_any_checkpoint_it_says_where_they_belong(place, capsys):
    with pytest.raises(SystemExit):
        benchmark_command.main(["--ph_only", "--skip_video"])
    message = capsys.readouterr().err
    assert "checkpoint/lift_ph/diffusion_policy_transformer" in message
    assert "bac checkpoint download task=lift_ph" in message and len(message.splitlines()) < 10


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--ph_only", "--mh_only"], "not allowed with"),
        (["--checkpoint_type", "best"], "max"),
        (["--seeds", "3"], "use one of 0, 1, 2"),
        (["--task", "lift_hp"], "did you mean lift_ph?"),
        (["--cache_mode", "edit"], "use one of original, threshold, optimal"),
        (["cache=bac"], "flags choose this here"),
    ],
)
def test_wrong_flags_of_a_batch_are_errors(place, capsys, arguments, says):
    with pytest.raises(SystemExit):
        benchmark_command.main(arguments)
    assert says in capsys.readouterr().err


def test_schedules_of_every_task_that_is_here(tree, in_one_process, capsys):
    given = ["--device", "cpu", "--num_caches", "3", "--task", "pusht_lowdim,can_ph", *PROFILE]
    assert steps_batch.main([*given[: -len(PROFILE)], "--debug"]) == 0
    assert not Path("assets").exists()
    assert steps_batch.main(given) == 0
    said = capsys.readouterr().out
    assert "can_ph: no checkpoint here" in said and "1 of 2 tasks done, 0 failed" in said
    assert Path("assets/pusht_lowdim/optimal_steps/cosine/decoder.layers.1.dropout3").is_dir()


def synthetic() -> list[Row]:
    values = {"lift_ph": (1.0, 0.9), "can_ph": (0.9, 0.8), "kitchen_p1": (1.0, 1.0), "kitchen_p4": (0.5, 0.25)}
    return [
        Row(method, steps, task, seed, kind, rate + (0.01 if seed == "1" else -0.01), flops, speedup)
        for method, steps, flops, speedup in (("Full", "-", 15.77e9, 1.0), ("BAC", "10", 2.66e9, 3.4))
        for task, rates in values.items()
        for seed in ("0", "1")
        for kind, rate in zip(("max", "avg"), rates)
    ]


def test_trainings_are_pooled_and_the_best_and_last_checkpoints_kept_apart():
    pooled = {(item.method, item.task): item for item in pool(synthetic())}
    can = pooled["BAC", "can_ph"]
    assert (can.best, can.last) == (pytest.approx(0.9), pytest.approx(0.8)) and can.speedup == pytest.approx(3.4)
    assert can.task_type == "ph" and pooled["Full", "kitchen_p4"].task_type == "kitchen"


def test_table_1_has_a_row_per_method_and_says_which_tasks_its_mean_lacks(place):
    head, body = table(synthetic(), ("ph",))
    assert head == [
        "Method",
        "Lift ph",
        "Can ph",
        "Square ph",
        "Trans ph",
        "Tool ph",
        "Push-T",
        "Mean",
        "FLOPs",
        "Speedup",
    ]
    assert body[0][:3] == ["Full", "1.00/0.90", "0.90/0.80"] and body[0][3] == "--"
    assert body[1] == ["BAC S=10", "1.00/0.90", "0.90/0.80", *["--"] * 4, "0.95/0.85 (2 of 6)", "2.66 G", "3.40x"]
    write_tables(synthetic(), place)
    text = (place / "table1.md").read_text()
    assert "| BAC S=10 | 1.00/0.90 | 0.90/0.80 |" in text and "Multi-stage tasks" in text and "Mixed" not in text
    latex = (place / "table1.tex").read_text()
    assert r"Lift$_{ph}$ & Can$_{ph}$" in latex and r"BAC S=10 & 1.00/0.90 & 0.90/0.80" in latex
    assert len(rows(str(place / "ph_results.csv"))) == 16 and not (place / "mh_results.csv").exists()


@pytest.mark.slow
def test_the_shell_scripts_run_a_cell_in_a_process_of_its_own(tree):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
    environment |= {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    output = tree / "out"
    ours = ["--seeds", "0", "--checkpoint_type", "max", "--cache_mode", "original", "--output_dir", str(output)]
    # A script goes to the folder that holds shs/: here the one with the checkpoints.
    for script in ("benchmark/run_all_benchmarks.sh", "get_steps/get_optimal_steps.sh"):
        copied = tree / "shs" / script
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "shs" / script, copied)
    (tree / "scripts").symlink_to(ROOT / "scripts")
    command = ["./shs/benchmark/run_all_benchmarks.sh", *BENCHMARKS, *ours, *EVAL]
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(rows(str(output / "results.csv"))) == 1
    command = ["./shs/get_steps/get_optimal_steps.sh", "--device", "cpu", "--num_caches", "3", "--ph_only"]
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "none of these tasks has a checkpoint here" in result.stderr


@pytest.mark.parametrize("name", ["ph", "mh", "bp", "kitchen"])
def test_every_group_has_a_script(name):
    script = ROOT / "shs" / "benchmark" / f"run_bac_model_{name}.sh"
    environment = {**os.environ, "PYTHON": "echo"}
    result = subprocess.run([script, "--device", "cpu"], env=environment, capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.split() == ["scripts/released.py", "benchmark_command", f"--{name}_only", "--device", "cpu"]
