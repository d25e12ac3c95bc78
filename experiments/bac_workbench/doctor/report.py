"""The doctor's rows as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bac_workbench.doctor.rows import FAIL, MISSING, PASS, Row

STYLES = {PASS: "green", FAIL: "red", MISSING: "yellow"}


def summary(rows: Sequence[Row], seconds: float) -> str:
    """One line: how many rows of each state, and what they mean."""
    counts = ", ".join(f"{sum(row.state == state for row in rows)} {state}" for state in (PASS, FAIL, MISSING))
    bad = [row.item for row in rows if row.bad]
    return f"{counts}; {seconds:.0f} s; " + (f"needs repair: {', '.join(bad)}" if bad else "all that is needed works")


def as_json(rows: Sequence[Row], seconds: float) -> str:
    """{"ok": bool, "seconds": number, "rows": [{item, found, state, repair, needed}]}"""
    ok = not any(row.bad for row in rows)
    return json.dumps({"ok": ok, "seconds": round(seconds, 1), "rows": [asdict(row) for row in rows]}, indent=2)


def show(rows: Sequence[Row], seconds: float) -> None:
    """A table; plain lines where rich, which draws it, is not installed (which is one of the rows)."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for row in rows:
            print(f"[{_state(row)}] {row.item}: {row.found}" + (f"\n    repair: {row.repair}" if row.repair else ""))
        print(summary(rows, seconds))
        return
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    table = Table(show_lines=False)
    table.add_column("item", no_wrap=True)
    for column in ("found", "state", "repair"):
        table.add_column(column, overflow="fold", no_wrap=column == "state")
    for row in rows:
        table.add_row(Text(row.item), Text(row.found), Text(_state(row), STYLES[row.state]), Text(row.repair))
    console.print(table)
    console.print(summary(rows, seconds), markup=False)


def _state(row: Row) -> str:
    return row.state if row.needed or row.state != FAIL else f"{FAIL} (not needed)"
