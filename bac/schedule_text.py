"""The two textual forms of a schedule: the JSON it is stored as and the grid it prints."""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np

from bac import strict_json
from bac.blocks import blocks_of, described_blocks, parse
from bac.provenance import Provenance, ScheduleError
from bac.strict_json import short_repr

FORMAT = "bac-schedule"
VERSION = 1
#: A complete schedule of MAX_CELLS decisions takes less; the bundled ones take 4 kB.
MAX_BYTES = 8 * 2**20
GRID_COLUMNS = 100
RULER_EVERY = 10


class ScheduleLike(Protocol):
    """What the texts say of a `bac.schedule.Schedule`."""

    @property
    def updates(self) -> np.ndarray: ...  # bool [steps, blocks]

    @property
    def blocks(self) -> tuple[str, ...]: ...

    @property
    def provenance(self) -> Provenance: ...

    @property
    def reuse(self) -> str: ...

    @property
    def origin(self) -> str: ...

    @property
    def steps(self) -> int: ...

    @property
    def update_steps(self) -> dict[str, list[int]]: ...

    @property
    def updates_per_block(self) -> dict[str, int]: ...

    @property
    def update_count(self) -> int: ...

    @property
    def active_steps(self) -> tuple[int, ...]: ...


def to_json(schedule: ScheduleLike) -> str:
    """JSON text with one line per block, so that two schedules can be compared line by line."""
    provenance = json.dumps(schedule.provenance.to_dict(), indent=2).replace("\n", "\n  ")
    rows = [f"    {json.dumps(name)}: {json.dumps(steps)}" for name, steps in schedule.update_steps.items()]
    lines = [
        "{",
        f'  "format": {json.dumps(FORMAT)},',
        f'  "version": {VERSION},',
        f'  "steps": {schedule.steps},',
        *([] if schedule.reuse == "hold" else [f'  "reuse": {json.dumps(schedule.reuse)},']),
        f'  "provenance": {provenance},',
        *_described(schedule.blocks),
        '  "updates": {',
        ",\n".join(rows),
        "  }",
        "}",
    ]
    text = "\n".join(lines) + "\n"
    if len(text) > MAX_BYTES:
        raise ScheduleError(
            f"the schedule is {len(text):,} bytes of JSON, and at most {MAX_BYTES:,} can be read again: "
            "shorten its extras"
        )
    return text


def _described(blocks: tuple[str, ...]) -> list[str]:
    """What the names of `Block`s do not say: one line, or none."""
    described = described_blocks(blocks)
    return [] if described is None else [f'  "blocks": {json.dumps(described)},']


def from_json(raw: bytes) -> tuple[dict[str, Any], Any, Provenance, Any]:
    """Parse stored bytes into (update steps per block, number of steps, provenance, reuse).

    Steps and reuse are checked by `Schedule.from_steps`. Files without a reuse hold; those with `blocks` are of
    `Block`s.

    Raises:
        ScheduleError: the bytes are not a complete schedule of this format version.
    """
    try:
        data = strict_json.loads(raw)
    except strict_json.StrictJSONError as error:
        raise ScheduleError(f"{error}; restore the file or profile again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ScheduleError(f'not a schedule (no "format": "{FORMAT}"); give a file written by Schedule.save')
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        raise ScheduleError(
            f"schedule format version {short_repr(data.get('version'))}, but this code reads version {VERSION}; "
            "use the code that wrote the file, or profile again"
        )
    expected = {"format", "version", "steps", "provenance", "updates"}
    if set(data) - {"reuse", "blocks"} != expected:
        raise ScheduleError(
            f"the keys must be {sorted(expected)}, got {short_repr(sorted(data), 200)}; restore the file"
        )
    if not isinstance(data["updates"], dict) or not isinstance(data["provenance"], dict):
        raise ScheduleError("'updates' and 'provenance' must be JSON objects; restore the file")
    updates = data["updates"]
    if "blocks" in data:
        try:
            blocks = blocks_of(data["blocks"])
        except ValueError as error:
            raise ScheduleError(f"{error}; restore the file") from error
        if list(blocks) != list(updates):
            raise ScheduleError("'blocks' and 'updates' must name the same blocks in the same order; restore the file")
        updates = dict(zip(blocks, updates.values()))
    return updates, data["steps"], Provenance.from_dict(data["provenance"]), data.get("reuse", "hold")


def to_grid(schedule: ScheduleLike) -> str:
    """One row per block, one column per step, ``#`` where the block updates, its number of updates at the end.

    The grid is at most 120 columns wide. Above 100 steps a column stands for several steps and shows whether the
    block updates in any of them.
    """
    stride = -(-schedule.steps // GRID_COLUMNS)
    starts = np.arange(0, schedule.steps, stride)
    marks = np.logical_or.reduceat(schedule.updates, starts)  # [columns, blocks]
    stack = parse(schedule.blocks[0]).stack
    names = [parse(name).short for name in schedule.blocks]
    width = max(len(name) for name in [stack, *names])
    ruler = "".join(str(k).ljust(RULER_EVERY) for k in starts[::RULER_EVERY]).rstrip()
    rows = [
        f"{name.ljust(width)} {''.join('#' if mark else '.' for mark in column)} {count}"
        for name, column, count in zip(names, marks.T, schedule.updates_per_block.values())
    ]
    return "\n".join([schedule.origin, summary(schedule), f"{stack.ljust(width)} {ruler}", *rows])


def summary(schedule: ScheduleLike) -> str:
    """How many block updates and active steps a schedule has, in one line."""
    total = schedule.updates.size
    return (
        f"{schedule.update_count} of {total} block updates ({schedule.update_count / total:.1%}), "
        f"{len(schedule.active_steps)} of {schedule.steps} steps active"
    )
