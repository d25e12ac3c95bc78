"""A schedule turned into a program: what each denoising step computes, adds and keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bac.schedule import Schedule


@dataclass(frozen=True)
class Segment:
    """A run of reused blocks, whose stored outputs are added together, followed by at most one computed block.

    Attributes:
        start, stop: stored outputs `start` ... `stop - 1` (block indices) are added to the residual stream; none if
            equal.
        memo: an identical run was summed at an earlier step and none of its blocks has updated since.
        keep: the sum is used again by a later step.
        block: index of the block that computes after the run, or None at the end of a step.
        store: the computed output is reused before the block computes again.
    """

    start: int
    stop: int
    block: int | None = None
    store: bool = False
    memo: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Plan:
    """Program of a whole action chunk: `steps[k]` lists the segments of denoising step k in execution order.

    A step without any update is a single segment over all blocks; if the step before it had none either, the segment is
    a memo and costs one addition.
    """

    schedule: Schedule
    steps: tuple[tuple[Segment, ...], ...]

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
            for block in np.flatnonzero(updates[k]):
                reused_next = k + 1 < n_steps and not updates[k + 1, block]
                segments.append(Segment(start, int(block), int(block), store=bool(reused_next)))
                start = int(block) + 1
            segments.append(Segment(start, n_blocks))
            steps.append(segments)
        return cls(schedule, tuple(tuple(step) for step in _mark_repeated_sums(steps, updates)))


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
