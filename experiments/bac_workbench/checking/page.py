"""check.html: one page with everything in it, which asks no network for anything."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from bac_workbench.checking.measure import FULL, Measured
from bac_workbench.checking.pictures import error_picture, latency_picture, position_picture

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse; margin: .5em 0 } td, th { padding: .2em .7em; border-bottom: 1px solid #ddd }
td { text-align: right } td:first-child, th:first-child { text-align: left }
th { font-weight: 600; text-align: right } img { max-width: 100% }
.verdict { border-left: .4em solid #999; padding: .1em 1em; background: #f6f6f6 }
.passed { border-color: #009E73 } .broken { border-color: #D55E00 } .small { color: #555; font-size: .9em }
"""


def page(measured: Measured, report: dict[str, Any]) -> str:
    """HTML of a report, as `report.report_of` makes it."""
    name = escape(report["setting"])
    state = "passed" if report["passed"] else "broken"
    parts = [
        f"<h1>Check of {name}</h1>",
        f"<div class='verdict {state}'>{''.join(f'<p>{escape(line)}</p>' for line in report['verdict'])}</div>",
        *([limits_table(report["limits"])] if report["limits"] else []),
        "<h2>Actions, in their own units</h2>",
        "<p class='small'>Error: mean absolute difference from the full policy under the same noise. Spread: what "
        "another noise seed of the full policy changes. Bias: mean difference, with its 95 % interval.</p>",
        dimensions_table(report["action"]),
        picture(error_picture(measured), "error and spread of each dimension"),
        picture(position_picture(measured), "error over spread, by position in the chunk"),
        "<h2>Distances from the full policy</h2>",
        "<p class='small'>Normalised units; intervals over states, 95 %. The first row is the setting; "
        "“full, other noise” is what two draws of the full policy differ by.</p>",
        distances_table(report["distances"]),
        "<h2>Times</h2>",
        latency_table(report["latency_ms"], report["deadline_ms"]),
        picture(latency_picture(measured), "times of a call"),
        "<h2>What was checked</h2>",
        facts(report),
    ]
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Check of {name}</title>"
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def picture(png: bytes, text: str) -> str:
    return f"<p><img alt='{escape(text)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'></p>"


def limits_table(limits: list[dict[str, Any]]) -> str:
    return table(
        ["limit", "allowed", "found", "action", ""],
        (
            [
                limit["name"],
                f"{limit['allowed']:g}",
                f"{limit['value']:.4g}",
                "" if limit["dimension"] is None else str(limit["dimension"]),
                "exceeded" if limit["broken"] else "kept",
            ]
            for limit in limits
        ),
    )


def dimensions_table(action: dict[str, Any]) -> str:
    rows = zip(
        action["error"],
        action["spread"],
        action["ratio"],
        action["error_p95"],
        action["bias"],
        action["bias_interval_95"],
    )
    return table(
        ["action", "error", "spread", "error / spread", "error, p95", "bias"],
        (
            [
                str(index),
                f"{error:.3g}",
                f"{spread:.3g}",
                f"{ratio:.3f}",
                f"{p95:.3g}",
                f"{bias:+.3g} [{low:+.3g}, {high:+.3g}]",
            ]
            for index, (error, spread, ratio, p95, bias, (low, high)) in enumerate(rows)
        ),
    )


def distances_table(distances: dict[str, dict[str, Any]]) -> str:
    columns = {
        "relative_energy": "relative energy",
        "mmd2": "MMD²",
        "median_error": "median error",
        "p95_error": "p95 error",
        "capped_rms_error": "capped RMS error",
        "jitter_ratio": "jitter ratio",
    }
    return table(
        ["", *columns.values()],
        (
            [name, *(f"{row[key]['value']:.4f} [{row[key]['low']:.4f}, {row[key]['high']:.4f}]" for key in columns)]
            for name, row in distances.items()
        ),
    )


def latency_table(latencies: dict[str, dict[str, Any]], deadline: float | None) -> str:
    rows = []
    for name, row in latencies.items():
        for part in ("call", "encoder", "denoiser"):
            late = f"{row['missed']:.1%}" if part == "call" and row["missed"] is not None else ""
            rows.append([f"{name}, {part}", *(f"{row[part][key]:.3f}" for key in ("p50", "p95", "p99")), late])
    head = ["milliseconds", "p50", "p95", "p99", "" if deadline is None else f"over {deadline:g} ms"]
    return table(head, rows) + f"<p class='small'>{latencies[FULL]['calls']} calls of each, interleaved, batch 1.</p>"


def facts(report: dict[str, Any]) -> str:
    provenance, request = report["provenance"], report["request"]
    known = {
        "checkpoint": f"{report['checkpoint']}, {request['weights']} weights, hash {request['checkpoint_hash'][:12]}",
        "setting": f"{report['setting']}, sampler {request['sampler']}, runtime {request['runtime']}",
        "schedule": report["schedule"] or "none: every block at every step",
        "judged on": report["observations"]["judged"],
        "machine": f"{provenance['hardware']}; commit {provenance['commit']}",
        "versions": ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
    }
    notes = "".join(f"<p class='small'>{escape(note)}</p>" for note in report["notes"])
    return table(["", ""], ([name, text] for name, text in known.items())) + notes
