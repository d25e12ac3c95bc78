"""bac dashboard: a local page without a login, and the same panels as a report where there is one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from bac_workbench.commands.dashboard import main
from bac_workbench.dashboard.panels import PANELS, read_studies
from bac_workbench.settings.caches import method_of
from tests.experiments.stored_runs import draws, stored, timed
from tests.experiments.wandb_server import server

wandb = pytest.importorskip("wandb")
pytest.importorskip("plotly")

METHODS = {"full": (24.7, 600.0), "uniform_s10": (2.5, 80.0), "bac_s10": (4.2, 100.0), "bac_s7": (3.1, 70.0)}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """Evaluations of four methods; nobody is logged in."""
    for name, (gflop, ms) in METHODS.items():
        scores = draws(len(name), 20, 0.7)
        path = stored(tmp_path / "results" / "t", name, name, scores, gflop, successes=scores)
        timed(path, ms, 600 / ms)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield tmp_path / "results"
    wandb.teardown()


def dashboard(monkeypatch, *arguments: object) -> int:
    """Runs the command; its exit status."""
    monkeypatch.setattr(sys, "argv", ["bac dashboard", *map(str, arguments)])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def log_in(monkeypatch, address: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    wandb.teardown()


def figures(page: str) -> list[list[dict]]:
    """The traces of each figure, as the page hands them to plotly."""
    found = re.findall(r'Plotly\.newPlot\(\s*"[^"]+",\s*(\[.*?\]),\s*\{"template"', page, re.DOTALL)
    return [json.loads(text) for text in found]


def test_without_a_login_it_is_a_page_that_needs_no_network(results, monkeypatch, capsys):
    assert dashboard(monkeypatch, results) == 0
    assert "not logged in" in capsys.readouterr().out
    page = (results / "dashboard.html").read_text()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    drawn = figures(page)
    assert len(drawn) == len(PANELS)
    score, against_time = drawn[0], drawn[4]
    rows = {row["method"]: row for row in read_studies(results, 0.05)[0][0].comparison.rows}
    assert [(bars["name"], bars["x"]) for bars in score] == [
        ("Full policy", ["ddpm100"]),
        ("Uniform", ["s10"]),
        ("BAC", ["s10", "s7"]),
    ]
    assert score[2]["y"] == [rows["bac_s10"]["mean_score"], rows["bac_s7"]["mean_score"]]
    low, high = rows["uniform_s10"]["interval_95"]
    assert score[1]["error_y"]["array"] == pytest.approx([high - rows["uniform_s10"]["mean_score"]])
    assert {points["name"]: points["x"] for points in against_time} == {
        "Full policy": [600.0],
        "Uniform": [80.0],
        "BAC": [100.0, 70.0],
    }
    assert all(name in page for name in METHODS)


def test_names_are_text_and_no_part_of_the_page(results, monkeypatch):
    evil = "<script>alert(1)</script>"
    for path in results.glob("t/*/eval_results.json"):
        path.write_text(path.read_text().replace('"task": "t"', json.dumps({"task": evil})[1:-1]))
    assert dashboard(monkeypatch, results / "t", "where=local", f"title={evil}") == 0
    assert evil not in (results / "t" / "dashboard.html").read_text()


def test_with_a_login_it_is_a_report_with_the_same_panels(results, monkeypatch, capsys):
    with server() as (address, saved):
        log_in(monkeypatch, address)
        assert dashboard(monkeypatch, results, "title=Push-T") == 0
        wandb.teardown()
    (report,) = saved
    assert f"report: {address}/me/bac/reports/Push-T--view1" in capsys.readouterr().out.replace("\n", "")
    assert (report["entityName"], report["projectName"], report["displayName"]) == ("me", "bac", "Push-T")
    blocks = json.loads(report["spec"])["blocks"]
    (table,) = (block["content"] for block in blocks if block["type"] == "markdown-block")
    assert all(f"| {name} |" in table for name in METHODS)
    (grid,) = (block["metadata"] for block in blocks if block["type"] == "panel-grid")
    filters = {
        runs["name"]: {item["key"]["name"]: item["value"] for item in runs["filters"]["filters"]}
        for runs in grid["runSets"]
    }
    assert filters == {
        name: {"jobType": "eval", "task_name": "t", "method": method}
        for name, method in {"Full policy": "full", "Uniform": "uniform", "BAC": "bac"}.items()
    }
    panels = [(panel["viewType"], panel["config"]) for panel in grid["panelBankSectionConfig"]["panels"]]
    bars = [config["metrics"] for kind, config in panels if kind == "Bar Chart"]
    assert bars == [["mean_score"], ["success_rate"], ["gflop_per_chunk"], ["speedup"]]
    points = [(config["xAxis"], config["yAxis"]) for kind, config in panels if kind == "Scatter Plot"]
    assert points == [("summary:ms_p50", "summary:success_rate"), ("summary:gflop_per_chunk", "summary:mean_score")]
    assert panels[-1][1]["mediaKeys"] == ["schedule", "similarity", "videos", "episodes"]
    assert not (results / "dashboard.html").exists()


def test_a_refused_login_is_said_and_where_decides_what_follows(results, monkeypatch, capsys):
    with server(accepts=False) as (address, _):
        log_in(monkeypatch, address)
        assert dashboard(monkeypatch, results, "where=wandb") == 1
        assert not (results / "dashboard.html").exists()
        assert dashboard(monkeypatch, results) == 0
        wandb.teardown()
    said = capsys.readouterr()
    assert "could not be used" in said.err and "could not be used" in said.out.replace("\n", " ")
    assert (results / "dashboard.html").exists()


def test_an_empty_folder_and_a_missing_login_are_told(results, monkeypatch, capsys):
    (results / "nothing").mkdir()
    assert dashboard(monkeypatch, results / "nothing", "where=local") == 1
    assert dashboard(monkeypatch, results, "where=wandb") == 1
    said = capsys.readouterr().err
    assert "nothing that can be compared" in said and "wandb login" in said


def test_methods_are_found_by_their_labels():
    assert [method_of(label) for label in ("bac_s10", "blockwise_acs_s7", "full", "sacs_g3", "other")] == [
        "bac",
        "blockwise_acs",
        "full",
        "sacs",
        "other",
    ]
