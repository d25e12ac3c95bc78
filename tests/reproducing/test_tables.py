"""The tables from planted evaluations: every number is the comparison's, the paper's stand where they belong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bac_workbench.commands.reproduce import DEFAULTS
from bac_workbench.reproducing.published import TABLE_1
from bac_workbench.reproducing.write import open_folder, write_all
from bac_workbench.settings.reproducing import Reproduce
from diffusion_policy.common.config import ConfigError
from tests.experiments.stored_runs import draws, stored

pytest.importorskip("plotly")
METHODS = {
    "full": ("full", "ddpm100", 0.9, 15.0),
    "uniform": ("uniform_s10", "ddpm100", 0.5, 1.5),
    "unified_acs": ("unified_acs_s10", "ddpm100", 0.6, 1.5),
    "bac": ("bac_s10", "ddpm100", 0.8, 3.0),
    "full-ddim16": ("full", "ddim16", 0.9, 2.4),
}
SETTINGS = Reproduce.model_validate({**DEFAULTS, "pictures": False, "output_dir": "paper"})


@pytest.fixture
def paper(tmp_path, monkeypatch) -> Path:
    """A task's own policy with two noise seeds, timed; and two published trainings of another one, best and last."""
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "paper"
    for place, (name, (method, sampler, rate, gflop)) in enumerate(METHODS.items()):
        for seed in (0, 1):
            own = {"task": "pusht_lowdim", "seed": seed, "sampler": sampler, "sampler_steps": 100}
            plant(output, f"{name}-seed{seed}", method, draws(10 * place + seed, 12, rate), gflop, **own)
            for kind in ("max", "avg") if "ddim" not in name else ():
                scores = draws(100 + 10 * place + seed, 12, rate)
                published = {"train": seed, "checkpoint_type": kind, "checkpoint_hash": f"{seed}{kind}"}
                plant(output, f"{name}-train{seed}-{kind}", method, scores, gflop, task="square_ph", **published)
    benchmark(output / "results" / "pusht_lowdim")
    open_folder(output / "other", SETTINGS, [])
    return output


def plant(output: Path, name: str, method: str, scores: list[float], gflop: float, **facts) -> None:
    stored(output / "results" / facts["task"], name, method, scores, gflop, **facts)


def benchmark(folder: Path) -> None:
    rows = []
    for method, sampler, _, gflop in METHODS.values():
        for runtime, ms in (("reference", 40 * gflop), ("compiled", 4 * gflop)):
            row = {"method": method, "sampler": sampler, "runtime": runtime, "batch": 1, "n": 20, "breakdown_ms": None}
            rows.append(row | {"ms_p50": ms, "ms_p95": ms, "speedup": 600 / ms, "speedup_same_runtime": 15 / gflop})
    facts = {"hardware": "a processor", "precision": "fp32", "versions": {"torch": "2", "diffusers": "0"}}
    (folder / "benchmark.json").write_text(json.dumps(rows))
    (folder / "benchmark_info.json").write_text(json.dumps({"provenance": facts}))


def lines(text: str, heading: str) -> dict[str, dict[str, str]]:
    """First cell -> cells by column of the table below a heading."""
    section = next(part for part in text.split("## ") if part.startswith(heading))
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(rows[0], row)) for row in rows[2:]}


def test_the_tables_say_what_the_comparison_says(paper):
    assert write_all(paper, SETTINGS, "assets", print)
    with open(paper / "table1.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    compared = json.loads((paper / "results/pusht_lowdim/comparison.json").read_bytes())["rows"]
    own = [row for row in rows if row["task"] == "pusht_lowdim"]
    assert {(row["cache"], row["sampler"], float(row["mean_score"])) for row in own} == {
        (row["method"], row["sampler"], row["mean_score"]) for row in compared if row["method"] != "unified_acs_s10"
    }
    shown = lines((paper / "table1.md").read_text(), "Table 1: success, arithmetic and wall-clock. Policies of")
    for row in own:
        low, high = float(row["mean_score_low"]), float(row["mean_score_high"])
        text = f"{float(row['mean_score']):.3f} [{low:.3f}, {high:.3f}]"
        assert any(cells["pusht_lowdim"] == text for cells in shown.values()), (row, shown)
    bac = shown["BAC, budget 10"]
    assert bac["fewer FLOPs"] == "5.0x" and bac["speed-up, compiled"] == "5.00x" and bac["GFLOP/chunk"] == "3.00"


def test_the_papers_numbers_stand_beside_its_own_tasks_alone(paper):
    write_all(paper, SETTINGS, "assets", print)
    text = (paper / "table1.md").read_text()
    trained = lines(text, "Table 1: success, arithmetic and wall-clock. Proficient")
    for row in TABLE_1.values():
        best, last = row.scores["square_ph"]
        assert trained[f"*paper*: {row.name}"]["square_ph"] == f"{best:.2f} / {last:.2f}"
    assert trained["BAC, budget 10"]["square_ph"].count("[") == 2, "best and last, each with its interval"
    others = lines(text, "Table 1: success, arithmetic and wall-clock. Policies of")
    assert all(row["pusht_lowdim"] == "-" for name, row in others.items() if name.startswith("*paper*"))
    with open(paper / "table1.csv", encoding="utf-8") as file:
        scores = {
            (row["task"], row["cache"], row["checkpoint_type"]): row["paper_score"] for row in csv.DictReader(file)
        }
    assert scores["square_ph", "bac_s10", "max"] == "0.82" and scores["square_ph", "bac_s10", "avg"] == "0.89"
    assert scores["pusht_lowdim", "bac_s10", "own"] == ""


def test_table_2_is_the_ablation_in_the_papers_order(paper):
    write_all(paper, SETTINGS, "assets", print)
    shown = lines((paper / "table2.md").read_text(), "Table 2: ablation of BAC's parts. Proficient")
    assert list(shown) == [
        "Uniform, budget 10",
        "*paper*: Uniform",
        "unified ACS, budget 10",
        "*paper*: Unified ACS",
        "BAC, budget 10",
        "*paper*: BAC (+BUA)",
    ]
    assert "\\toprule" in (paper / "table2.tex").read_text() and "*paper*" not in (paper / "table2.tex").read_text()


def test_the_page_is_there_and_is_replaced_by_the_next(paper):
    write_all(paper, SETTINGS, "assets", print)
    before = (paper / "report.html").read_text()
    write_all(paper, SETTINGS.replace(margin=0.2), "assets", print)
    assert "not worse by 0.2" in (paper / "report.html").read_text() != before


def test_a_task_without_the_full_policy_is_said_and_stops_no_other(paper):
    (paper / "results/alone").mkdir()
    path = paper / "results/pusht_lowdim/bac-seed0"
    path.rename(paper / "results/alone/bac")
    said: list[str] = []
    assert not write_all(paper, SETTINGS, "assets", said.append)
    assert any(line.startswith("left out: alone") for line in said)
    assert "pusht_lowdim" in (paper / "table1.md").read_text()


# ---- the folder ----
def test_a_folder_is_of_one_runtime_and_one_set_of_settings(tmp_path):
    folder = tmp_path / "paper"
    open_folder(folder, SETTINGS, ["task.environment.max_steps=9", "launcher=joblib"])
    open_folder(folder, SETTINGS.replace(seeds=[5], n_test=90), ["task.environment.max_steps=9", "eval.n_envs=3"])
    for settings, others in ((SETTINGS, []), (SETTINGS.replace(runtime="planned"), ["task.environment.max_steps=9"])):
        with pytest.raises(ConfigError, match="choose another output_dir="):
            open_folder(folder, settings, others)


def test_nothing_is_written_among_files_of_others(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="no folder of bac reproduce"):
        open_folder(tmp_path, SETTINGS, [])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
