"""A dashboard as one HTML file, which needs no network: panels by plotly, and the tables of the comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

from bac_workbench.dashboard.panels import PANELS, Measure, Panel, Study, run_set, setting_of
from bac_workbench.evaluation.comparison_tables import Lines, lines_of, machine_notes, overview_lines
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 1rem; }
.panels > div { min-width: 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
"""
HEIGHT = 380
CONFIG = {"displaylogo": False, "responsive": True}


def check_plotly() -> ModuleType:
    """plotly's graph objects.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ConfigError("a local page needs plotly: pip install 'bac-workbench[report]'") from error
    return go


def write_page(path: Path, title: str, studies: Sequence[Study], skipped: Mapping[str, str]) -> None:
    """Writes the page.

    Args:
        skipped: folder -> why it is left out.
    """
    text = page(title, studies, skipped)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(title: str, studies: Sequence[Study], skipped: Mapping[str, str]) -> str:
    from plotly.offline import get_plotlyjs

    parts = [f"<h1>{escape(title)}</h1>"]
    if len(studies) > 1:
        overview = overview_lines({study.name: study.comparison.rows for study in studies})
        parts += ["<h2>Paired difference to the full policy [95 %], and verdict</h2>", html_table(overview)]
    for study in studies:
        parts += section(study)
    parts += [f"<p>left out: {escape(name)}: {escape(reason)}</p>" for name, reason in skipped.items()]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}<script>{get_plotlyjs()}</script></head>\n'
        f"<body>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def section(study: Study) -> list[str]:
    """Panels and table of one task."""
    comparison = study.comparison
    figures = [figure(panel, study) for panel in PANELS]
    drawn = [
        f"<div>{item.to_html(config=CONFIG, full_html=False, include_plotlyjs=False)}</div>" for item in figures if item
    ]
    notes = [f"paired with {', '.join(comparison.references)}", *machine_notes(comparison.rows)]
    notes += [f"left out: {run}: {reason}" for run, reason in comparison.skipped.items()]
    return [
        f"<h2>{escape(study.title)}</h2>",
        f'<div class="panels">{"".join(drawn)}</div>',
        html_table(lines_of(comparison.rows, comparison.margin)),
        *(f"<p>{escape(note)}</p>" for note in notes),
    ]


def figure(panel: Panel, study: Study) -> Any:
    """The panel as a figure of plotly; None where no row has its numbers."""
    go = check_plotly()
    drawn = go.Figure()
    for family, rows in study.families.items():
        name, colour = run_set(family)
        known = [row for row in rows if all(m.value(row)[0] is not None for m in (panel.y, panel.x) if m)]
        if not known:
            continue
        look = {
            "name": name,
            "y": [panel.y.value(row)[0] for row in known],
            "error_y": error_bars(panel.y, known),
            "marker": {"color": colour},
            "hovertext": [escape(row["label"]) for row in known],
        }
        if panel.x is None:
            drawn.add_bar(x=[escape(setting_of(row)) for row in known], **look)
        else:
            drawn.add_scatter(x=[panel.x.value(row)[0] for row in known], mode="markers", **look)
    if not drawn.data:
        return None
    margin = {"l": 60, "r": 20, "t": 50, "b": 60}
    drawn.update_layout(title=panel.title, barmode="group", height=HEIGHT, margin=margin, template="plotly_white")
    if panel.x is None:
        drawn.update_xaxes(title="budget and sampler", type="category")
    else:
        drawn.update_xaxes(title=panel.x.title, type="log" if panel.log_x else "linear")
    drawn.update_yaxes(title=panel.y.title, rangemode="tozero")
    return drawn


def error_bars(measure: Measure, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The 95 % intervals; None where there are none."""
    found = [measure.value(row) for row in rows]
    if any(bounds is None for _, bounds in found):
        return None
    above = [max(bounds[1] - value, 0) for value, bounds in found]
    below = [max(value - bounds[0], 0) for value, bounds in found]
    return {"type": "data", "array": above, "arrayminus": below, "thickness": 1.5}


def html_table(lines: Lines) -> str:
    head, body = lines
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in body]
    names = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class="table"><table><tr>{names}</tr>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'
