"""A report on docs/results shows the tables and figures of the committed pages, digit by digit."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from matplotlib import image

from bac.drawing import save
from bac_workbench.reporting.evidence import read_surge
from bac_workbench.reporting.names import TITLES
from bac_workbench.reporting.pictures import draw_scores, draw_surge
from bac_workbench.reporting.studies import read_studies
from bac_workbench.reporting.tuned import tuned_methods
from tests.docs.pages import ROOT
from tests.reporting.conftest import RESULTS
from tests.reporting.dom import rows_of, text_of, tree

TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)


def tables_in(text: str) -> list[str]:
    return TABLE.findall(text)


@pytest.mark.parametrize("task", TITLES)
def test_tables_of_a_committed_page_are_those_of_the_report(kept_report, task):
    committed = tables_in((RESULTS / f"{task}.md").read_text(encoding="utf-8"))
    reported = tables_in((kept_report / "report.md").read_text(encoding="utf-8"))
    staged = task in ("block_pushing", "kitchen_scripted_demos")
    assert len(committed) == 2 + staged + (task == "pusht_lowdim") and all(table in reported for table in committed)


def test_the_overview_is_that_of_the_results(kept_report):
    text = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    committed = tables_in(re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text))  # its tasks are links
    assert tables_in((kept_report / "report.md").read_text(encoding="utf-8"))[0] in committed


def test_the_page_has_the_same_cells_as_the_summary(kept_report):
    page = tree((kept_report / "report.html").read_text(encoding="utf-8"))
    shown = [rows_of(table) for box in page.iter("div") if box.get("class") == "wide" for table in box.iter("table")]
    lines = [table.splitlines() for table in tables_in((kept_report / "report.md").read_text(encoding="utf-8"))]
    summary = [
        [[cell.strip().replace("**", "") for cell in line.strip("|").split("|")] for line in [table[0], *table[2:]]]
        for table in lines
    ]
    assert shown == summary and len(shown) == 19


@pytest.mark.parametrize("task", TITLES)
def test_the_committed_picture_of_scores_is_the_reports(task, tmp_path):
    studies, _ = read_studies([RESULTS], 0.05, tuned_methods(ROOT / "assets", TITLES))
    figure = draw_scores(next(study for study in studies if study.task == task))
    whole, names = figure.axes[0].get_window_extent(), [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(names) >= 8 and all(whole.containsx(box.x1) and whole.containsy(box.y1) for box in names)
    assert not any(box.overlaps(other) for box, other in itertools.combinations(names, 2))
    save(figure, tmp_path / "scores.png")
    drawn, committed = image.imread(tmp_path / "scores.png"), image.imread(ROOT / "docs" / "figures" / f"{task}.png")
    assert drawn.shape == committed.shape
    assert np.abs(drawn - committed).mean() < 1e-3  # another build of the font library may shade letters otherwise


def test_the_committed_picture_of_error_surge_is_the_reports(kept_report, tmp_path):
    _, surge = read_surge(RESULTS / "pusht_lowdim_figures" / "figures.json")
    save(draw_surge(surge), tmp_path / "surge.png")
    drawn, committed = (
        image.imread(path) for path in (tmp_path / "surge.png", ROOT / "docs" / "figures" / "error_surge_pusht.png")
    )
    assert drawn.shape == committed.shape and np.abs(drawn - committed).mean() < 1e-3
    assert "Error surge: errors of block outputs" in (kept_report / "report.html").read_text(encoding="utf-8")


def test_every_task_has_its_schedules_with_the_repair_marked(kept_report):
    page = tree((kept_report / "report.html").read_text(encoding="utf-8"))
    headings = [text_of(heading) for heading in page.iter("h4")]
    marked = [
        text for text in headings if re.match(r"Schedule bac_s10: \d+ of 2400 updates, [1-9]\d* added by BUA", text)
    ]
    assert len(marked) == len(TITLES)
    assert sum(text.startswith("Similarity of block outputs") for text in headings) == len(TITLES)


def test_what_is_missing_is_named_with_what_would_make_it(kept_report):
    page = tree((kept_report / "report.html").read_text(encoding="utf-8"))
    missing = [text_of(line) for box in page.iter("ul") if box.get("class") == "missing" for line in box]
    assert any("bac eval -m task=pusht_lowdim cache=unified_acs,sacs" in line for line in missing)
    assert any("no videos" in line and "eval.n_videos=2" in line for line in missing)
    assert all("bac " in line or "not timed" in line for line in missing)


def test_the_page_is_small_enough_to_show(kept_report):
    assert (kept_report / "report.html").stat().st_size < 30e6
