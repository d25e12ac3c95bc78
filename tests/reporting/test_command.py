"""bac report of evaluations: its tables are those of bac compare, its files are its own, and it says what is wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from bac_workbench.evaluation.comparison import compare
from bac_workbench.reporting.outcomes import outcomes
from bac_workbench.reporting.studies import read_studies
from tests.reporting.conftest import run_report
from tests.reporting.dom import rows_of, text_of, tree


def page_of(folder):
    return tree((folder / "report.html").read_text(encoding="utf-8"))


# ---- content ----
def test_tables_are_those_of_the_comparison(evaluations, reported):
    compare(evaluations)
    table = (evaluations / "comparison.md").read_text(encoding="utf-8").split("\n\n")[0]
    assert table in (reported("pictures=false") / "report.md").read_text(encoding="utf-8")


def test_every_figure_is_written_as_png_and_pdf(evaluations, reported):
    output = reported()
    names = {path.name for path in (output / "figures").iterdir()}
    stems = {f"pusht_{figure}" for figure in ("scores", "ablation", "outcomes")}
    assert names == {f"{stem}.{ending}" for stem in stems for ending in ("png", "pdf")}
    described = json.loads((output / "report.json").read_text())
    assert set(described["files"]) == {"report.html", "report.md", *(f"figures/{name}" for name in names)}
    shown = {item.get("id") for item in page_of(output).iter("div") if item.get("class") == "chart"}
    assert shown == {"pusht_scores", "pusht_ablation"}
    assert all(f"figures/{stem}.png" in (output / "report.md").read_text() for stem in stems)


def test_outcomes_add_up_to_the_pairs_and_to_both_rates(evaluations):
    ((study,), _) = read_studies([evaluations], 0.05, {})
    found = outcomes(study)
    assert [item.method.name for item in found] == ["bac_s10", "sacs_s10", "uniform_s10"]
    for item in found:
        row = item.method.row
        assert item.total == row["n_episodes"] == 40 and min(item.both, item.gained, item.lost, item.neither) >= 0
        assert (item.both + item.gained) / 40 == pytest.approx(row["success_rate"]["mean"])
        assert (item.both + item.lost) / 40 == pytest.approx(row["reference_mean_score"])


def test_bars_start_at_zero_and_carry_the_interval(evaluations, reported):
    page = page_of(reported("pictures=false"))
    data = {item.get("id"): json.loads("".join(item.itertext())) for item in page.iter("script") if item.get("id")}
    figure = data["pusht_ablation-data"]
    assert figure["layout"]["yaxis"]["range"][0] == 0
    ((study,), _) = read_studies([page_source(page)], 0.05, {})
    rows = {method.row["method"]: method.row for method in study.methods}
    for bar, method in zip(figure["data"], ("uniform_s10", "bac_s10", "sacs_s10")):
        mean, (low, high) = rows[method]["mean_score"], rows[method]["interval_95"]
        assert bar["y"] == [mean]
        assert bar["error_y"]["array"] + bar["error_y"]["arrayminus"] == pytest.approx([high - mean, mean - low])


def page_source(page):
    line = next(text_of(item) for item in page.iter("p") if text_of(item).startswith("From "))
    return Path(line.removeprefix("From ").split(", checkpoint")[0])


def test_error_surge_is_shown_from_the_stored_numbers(evaluations, reported):
    """Planted: Uniform errs by half of the outputs' size everywhere, BAC by a quarter."""
    blocks = ["decoder.layers.0.sa", "decoder.layers.0.ca", "decoder.layers.0.ffn"]
    sizes, labels = np.full((8, 3), 2.0), {"uniform": "uniform_s4", "bac": "bac_s4"}
    errors = {"uniform": np.full((8, 3), 1.0), "bac": np.full((8, 3), 0.5)}
    numbers = {"block_updates": 12, "block_updates_full": 24, "gflop": 1.5, "action_error": 0.125}
    described = {
        "settings": {"checkpoint_hash": "a", "caches": list(labels)},
        "caches": {labels[name]: {**numbers, "relative_error": errors[name].mean() / 2} for name in labels},
    }
    folder = evaluations / "figures"
    folder.mkdir()
    (folder / "figures.json").write_text(json.dumps(described))
    arrays = {f"errors|{name}": values for name, values in errors.items()}
    np.savez(folder / "figures.npz", blocks=np.array(blocks), sizes=sizes, **arrays)
    output = reported()
    assert {path.name for path in (output / "figures").glob("*surge*")} == {
        "pusht-a_error_surge.png",
        "pusht-a_error_surge.pdf",
    }
    page = page_of(output)
    data = {item.get("id"): json.loads("".join(item.itertext())) for item in page.iter("script") if item.get("id")}
    lines = data["pusht-a_error_surge-data"]["data"]
    assert [line["name"] for line in lines] == ["uniform_s4", "bac_s4"] * 3
    for line, error in zip(lines, (0.5, 0.25) * 3):
        values = np.frombuffer(base64.b64decode(line["y"]["bdata"]), line["y"]["dtype"])
        assert values == pytest.approx(np.full(8, error))
    assert [row[0] for row in rows_of(list(page.iter("table"))[-1])] == ["cache", "uniform_s4", "bac_s4"]


# ---- videos ----
def test_videos_of_one_seed_are_side_by_side_as_far_as_there_is_room(evaluations, reported):
    page = page_of(reported("pictures=false", "videos_mb=0.1"))
    groups = [item for item in page.iter("div") if item.get("class") == "rollouts"]
    assert len(groups) == 1 and text_of(groups[0]).startswith("test_100 ")
    videos = list(groups[0].iter("video"))
    assert [text_of(item) for item in groups[0].iter("figcaption")] == ["full", "bac_s10", "sacs_s10", "uniform_s10"]
    assert all(item.get("src").startswith("data:video/mp4;base64,") for item in videos)
    left_out = [text_of(item) for box in page.iter("ul") if box.get("class") == "missing" for item in box]
    assert "videos without room in videos_mb=0.1: test_101" in left_out
    assert len(list(page_of(reported("pictures=false", "overwrite=true")).iter("video"))) == 8


# ---- files ----
def test_the_same_report_replaces_itself_and_another_is_refused(evaluations, reported, capsys):
    output = reported()
    before = (output / "report.html").read_bytes()
    assert (reported() / "report.html").read_bytes() == before
    with pytest.raises(SystemExit):
        reported("margin=0.1")
    assert "holds another report (margin 0.05 there, 0.1 now)" in capsys.readouterr().err
    assert (output / "report.html").read_bytes() == before
    assert not list((reported("margin=0.1", "overwrite=true", "pictures=false") / "figures").iterdir())


def test_a_foreign_page_is_not_replaced(evaluations, reported, tmp_path, capsys):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("mine")
    with pytest.raises(SystemExit):
        reported()
    assert "nothing says what it is of" in capsys.readouterr().err
    assert (tmp_path / "report" / "report.html").read_text() == "mine"


def test_a_description_removes_no_files_of_others(evaluations, reported, tmp_path):
    output = reported("pictures=false")
    (tmp_path / "precious.png").write_text("mine")
    described = json.loads((output / "report.json").read_text())
    described["files"] += ["../precious.png", "figures/../../precious.png"]
    (output / "report.json").write_text(json.dumps(described))
    reported("pictures=false")
    assert (tmp_path / "precious.png").exists()


# ---- what is wrong ----
@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "usage: bac report FOLDER"),
        (["nowhere"], "there is no folder nowhere"),
        (["."], "holds neither evaluations"),
        ([".", "videos=3"], "videos"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, tmp_path, monkeypatch, capsys):
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run_report(*arguments)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ['{"rows": [{}], "reference": {}}', '{"rows": []}', "[]", '{"rows": 3, "reference": 1}']
)
def test_a_damaged_kept_file_is_named(text, tmp_path, capsys):
    pytest.importorskip("plotly")
    (tmp_path / "t_frontier.json").write_text(text)
    with pytest.raises(SystemExit):
        run_report(tmp_path)
    assert "t_frontier.json is no stored comparison" in capsys.readouterr().err


def test_rows_of_a_table_without_a_full_policy_are_left_out(evaluations, reported, capsys):
    for path in (evaluations.with_name("other") / "bac", evaluations.with_name("other") / "uniform"):
        path.mkdir(parents=True)
        (path / "eval_results.json").write_bytes((evaluations / path.name / "eval_results.json").read_bytes())
    output = reported("pictures=false")
    assert "left out:" in capsys.readouterr().out
    assert "other" in (output / "report.md").read_text().split("## Left out")[1]
    assert len(rows_of(next(page_of(output).iter("table")))) == 5
