"""A schedule turned into a program: what each denoising step computes, adds and keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bac.provenance import ScheduleError
from bac.schedule import Schedule
from bac.solver import Solver


@dataclass(frozen=True)
class Segment:
    """A run of reused blocks, whose stored outputs are added together, followed by at most one computed block.

    Attributes:
        start, stop: stored outputs `start` ... `stop - 1` (block indices) are added to the residual stream; none if
            equal.
        memo: an identical run was summed at an earlier step and none of its blocks has updated since.
        keep: the sum is used again by a later step.
        block: index of the block that computes after the run, or None at the end of a step.
        store: the computed output is reused before the block computes again; or, where outputs are extrapolated, its
            difference to the next one is.
        gap: steps since the block computed before, where the slope between the two outputs is needed; else 0.
    """

    start: int
    stop: int
    block: int | None = None
    store: bool = False
    memo: bool = False
    keep: bool = False
    gap: int = 0


@dataclass(frozen=True)
class Plan:
    """Program of a whole action chunk: `steps[k]` lists the segments of denoising step k in execution order.

    A step without any update is a single segment over all blocks; if the step before it had none either, the segment is
    a memo and costs one addition.

    Attributes:
        ahead: int [steps, blocks], None where outputs are held: a reused output at a step is its stored value and
            `ahead` times its slope. 0 where there is no slope yet, or the block computes. A run that is a memo is
            extrapolated from the step where it was summed, by the sum of its slopes.
    """

    schedule: Schedule
    steps: tuple[tuple[Segment, ...], ...]
    ahead: np.ndarray | None = None

    @property
    def blocks(self) -> tuple[str, ...]:
        return self.schedule.blocks

    @property
    def caches(self) -> bool:
        """Whether any block is ever reused."""
        return not bool(self.schedule.updates.all())

    @classmethod
    def of(cls, schedule: Schedule) -> Plan:
        updates = schedule.updates
        n_steps, n_blocks = updates.shape
        steps: list[list[Segment]] = []
        for k in range(n_steps):
            segments, start = [], 0
            for block in np.flatnonzero(updates[k]).tolist():
                store, gap = _kept(updates[:, block], k, schedule.reuse)
                segments.append(Segment(start, block, block, store=store, gap=gap))
                start = block + 1
            segments.append(Segment(start, n_blocks))
            steps.append(segments)
        ahead = _steps_ahead(updates) if schedule.reuse == "extrapolate" else None
        return cls(schedule, tuple(tuple(step) for step in _mark_repeated_sums(steps, updates)), ahead)


def check_reuse(schedule: Schedule, solver: Solver | None) -> None:
    """Refuses to extrapolate block outputs of a sampler that adds noise; `solver` None: nobody knows whether it does.

    Raises:
        ScheduleError: saying what to do.
    """
    if schedule.reuse == "hold" or (solver is not None and solver.deterministic):
        return
    noise = "may add noise" if solver is None else "adds noise"
    raise ScheduleError(
        f"this schedule extrapolates block outputs, and the sampler {noise} between its steps, which no line through "
        'earlier steps follows: use a deterministic sampler (DDIM with eta 0), or reuse="hold" in the schedule'
    )


def _kept(computes: np.ndarray, step: int, reuse: str) -> tuple[bool, int]:
    """(store, gap) of a block's update at `step`; `computes` [steps] is its column of the schedule."""

    def reused_after(update: int) -> bool:
        return update + 1 < len(computes) and not computes[update + 1]

    reused = reused_after(step)
    if reuse == "hold":
        return reused, 0
    before, after = np.flatnonzero(computes[:step]), np.flatnonzero(computes[step + 1 :])
    needed_next = len(after) > 0 and reused_after(step + 1 + int(after[0]))
    return reused or needed_next, step - int(before[-1]) if reused and len(before) else 0


def _steps_ahead(updates: np.ndarray) -> np.ndarray:
    """`Plan.ahead`: steps since the last update of each block, 0 until it has updated twice."""
    last = np.maximum.accumulate(np.where(updates, np.arange(len(updates))[:, None], 0))
    return np.where(updates.cumsum(axis=0) > 1, np.arange(len(updates))[:, None] - last, 0)


def _mark_repeated_sums(steps: list[list[Segment]], updates: np.ndarray) -> list[list[Segment]]:
    """Finds runs of at least two blocks that are summed again before any of their blocks updates."""
    last_use: dict[tuple[int, int], tuple[int, int]] = {}  # run -> (step, position) of its latest occurrence
    marked = [list(step) for step in steps]
    for k, step in enumerate(steps):
        for position, segment in enumerate(step):
            run = (segment.start, segment.stop)
            if run[1] - run[0] < 2:
                continue
            if run in last_use:
                k0, p0 = last_use[run]
                # outputs stored at step k0 itself, after the sum was taken, would change it: they are not in this run
                if not updates[k0 + 1 : k + 1, run[0] : run[1]].any():
                    marked[k0][p0] = replace(marked[k0][p0], keep=True)
                    marked[k][position] = replace(marked[k][position], memo=True)
            last_use[run] = (k, position)
    return marked
