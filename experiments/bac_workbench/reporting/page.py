"""report.html: one page that holds everything it shows and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from bac_workbench.reporting import charts
from bac_workbench.reporting.content import StudyPart, TaskPart, overviews, surge_table
from bac_workbench.reporting.evidence import Evidence
from bac_workbench.reporting.names import FAMILIES
from bac_workbench.reporting.studies import Study, slug

FILES = Path(__file__).parent / "page"


def page(studies: Sequence[Study], parts: Sequence[TaskPart], left_out: Mapping[str, str]) -> str:
    """The text of the page. Whatever comes from files is escaped, and a policy in its head forbids any request.

    Args:
        left_out: folder -> why it is not among the studies.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(FILES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": cell, "tags": tags, "json_text": json_text, "slug": slug}
    plotly, script = get_plotlyjs(), (FILES / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        title="BAC report" + (f": {parts[0].title}" if len(parts) == 1 else ""),
        policy=policy(plotly, script),
        css=(FILES / "report.css").read_text(encoding="utf-8"),
        plotly=plotly,
        script=script,
        parts=parts,
        filters=filters(parts),
        colours={name: look.colour for name, look in FAMILIES.items()},
        overviews=overviews(studies),
        left_out=[f"left out: {folder}: {reason}" for folder, reason in left_out.items()],
        charts={key: drawn for part in parts for key, drawn in charts_of(part)},
        versions=f"bac-workbench {version('bac-workbench')}, plotly {version('plotly')}",
    )


def version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "run from its sources"


# ---- safety ----
def policy(*scripts: str) -> str:
    """A Content-Security-Policy by which these scripts alone run and nothing is requested."""
    hashes = " ".join(f"'sha256-{digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def cell(text: str) -> Markup:
    """A cell of a table; **bold** as in Markdown."""
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text))))


def tags(values: Mapping[str, str]) -> Markup:
    """The attributes that the filters look at."""
    return Markup("").join(Markup(' data-{}="{}"').format(kind, value) for kind, value in values.items())


def json_text(text: str) -> Markup:
    """JSON within a script element, which nothing in it can end."""
    return Markup(text.replace("<", "\\u003c"))


# ---- content ----
def filters(parts: Sequence[TaskPart]) -> dict[str, dict[str, str]]:
    """Kind -> value -> text of its box, of everything that the page shows."""
    methods = [method for part in parts for item in part.studies for method in item.study.methods]
    shown = [method.tags for method in methods]
    shown += [grid.tags for part in parts for evidence in part.evidence for grid in evidence.grids]
    families = {tag["method"] for tag in shown}
    budgets = sorted({tag["budget"] for tag in shown}, key=lambda text: int(text) if text.isdecimal() else 0)
    return {
        "task": {part.task: part.title for part in parts},
        "method": {name: look.title for name, look in FAMILIES.items() if name in families},
        "budget": {text: "none" if text == "-" else text for text in budgets},
    }


def charts_of(part: TaskPart) -> list[tuple[str, dict[str, Any]]]:
    """The figures of a task's studies and checkpoints, by their keys."""
    return [(item.study.key, study_charts(item)) for item in part.studies] + [
        (evidence.key, evidence_charts(evidence)) for evidence in part.evidence
    ]


def study_charts(item: StudyPart) -> dict[str, Any]:
    study = item.study
    drawn = [(timed, charts.breakdown(study, timed)) for timed in study.timed]
    return {
        "scores": charts.scores(study),
        "ablation": charts.ablation_bars(study),
        "breakdowns": [(timed, figure) for timed, figure in drawn if figure is not None],
    }


def evidence_charts(evidence: Evidence) -> dict[str, Any]:
    return {
        "grids": [charts.schedule_grid(evidence, grid) for grid in evidence.grids],
        "similarity": charts.similarity_maps(evidence),
        "surge": None if evidence.surge is None else charts.error_surge(evidence, evidence.surge),
        "surge_table": None if evidence.surge is None else surge_table(evidence.surge),
    }
