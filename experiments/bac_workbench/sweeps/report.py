"""What a sweep says: a line as a cell ends, and the table at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from bac_workbench.console import console, table
from bac_workbench.sweeps.outcomes import FAILED, FINISHED, THERE, Outcome, Records

NOT_RUN = "not finished"


def cell_names(cells: Sequence[Sequence[str]]) -> list[str]:
    """What tells each cell from the others: 'cache=bac seed=1'; for a single one all that it was given."""
    varied = [[text for text in cell if any(text not in other for other in cells)] for cell in cells]
    return [" ".join(own or cell) for own, cell in zip(varied, cells)]


def ended_line(count: int, names: Sequence[str], cell: int, outcome: Outcome) -> str:
    text = f"[{count} of {len(names)}] {names[cell]}: {outcome.state}"
    return text + (f", {outcome.note}" if outcome.note else "")


def outcome_table(names: Sequence[str], outcomes: Sequence[Outcome | None]) -> Table:
    rows = []
    for name, outcome in zip(names, outcomes):
        if outcome is None or not outcome.ended:
            rows.append([name, NOT_RUN, "", ""])
        else:
            rows.append([name, outcome.state, f"{outcome.seconds:.0f} s", outcome.note])
    shown = table("the sweep", ["cell", "outcome", "took", "what came of it"], rows)
    shown.columns[1].justify = shown.columns[3].justify = "left"
    return shown


def tell(names: Sequence[str], outcomes: Sequence[Outcome | None], records: Records | None) -> bool:
    """Prints the table and the sum; returns whether all cells have finished."""
    console.print(outcome_table(names, outcomes))
    counts = Counter(NOT_RUN if outcome is None or not outcome.ended else outcome.state for outcome in outcomes)
    parts = [f"{counts[state]} {state}" for state in (FINISHED, THERE, FAILED, NOT_RUN) if counts[state]]
    console.print(f"{len(names)} cells: {', '.join(parts)}")
    complete = counts[FINISHED] + counts[THERE] == len(names)
    if not complete:
        logs = (
            f"; what they said: {records.folder}" if records is not None and any(records.folder.glob("*.log")) else ""
        )
        console.print(f"the same command goes on with what is missing{logs}", markup=False)
    return complete
