"""Each block's cheapest update steps for every number of updates: the dynamic program of `bac.acs`, all blocks at once.

Exact ties go to the smaller step, from the last interval back.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np


class UpdateSteps(Protocol):
    """Solved.

    Attributes:
        values: [blocks, K]; the least total cost with m + 1 updates.
    """

    values: np.ndarray

    def steps_of(self, block: int, updates: int) -> list[int]:
        """Ascending update steps of a block with so many updates."""
        ...


class HeldSteps:
    """For outputs that are held: an interval costs what its own ends decide.

    Args:
        hold: [blocks, K, K]; entry a, e is the cost of the interval a .. e.
    """

    def __init__(self, hold: np.ndarray):
        interval = _until(hold)  # [blocks, a, s]: of a .. s - 1
        best = interval[:, 0]  # [blocks, s]: the cheapest intervals that cover 0 .. s - 1, here a single one
        values = [best[:, -1]]
        self.starts: list[np.ndarray] = []  # per further interval, [blocks, s]: where the last one starts
        for _ in range(hold.shape[1] - 1):
            total = best[:, :-1, None] + interval
            self.starts.append(total.argmin(axis=1))
            best = total.min(axis=1)
            values.append(best[:, -1])
        self.values = np.stack(values, axis=1)

    def steps_of(self, block: int, updates: int) -> list[int]:
        chosen, after = [], self.values.shape[1]
        for starts in reversed(self.starts[: updates - 1]):
            after = int(starts[block, after])
            chosen.append(after)
        return [0, *reversed(chosen)]


class ExtrapolatedSteps:
    """For outputs that are extrapolated: an interval's cost depends on the update before it, too.

    Args:
        hold: as above; the first interval has no update before it and is held.
        extrapolate: [blocks, K, K, K]; entry a', a, e is the cost of the interval a .. e after an update at a'.
    """

    def __init__(self, hold: np.ndarray, extrapolate: np.ndarray):
        steps = hold.shape[1]
        interval = _until(extrapolate)  # [blocks, a', a, s]
        best = np.full((len(hold), steps, steps + 1), np.inf)  # [blocks, a, s]: the last interval is a .. s - 1
        best[:, 0] = _until(hold)[:, 0]
        ends, lasts = [best[:, :, -1].min(axis=1)], [best[:, :, -1].argmin(axis=1)]
        self.befores: list[np.ndarray] = []  # per further interval, [blocks, a, s]: the update before a
        for _ in range(steps - 1):
            total = best[:, :, :-1, None] + interval
            self.befores.append(total.argmin(axis=1))
            best = total.min(axis=1)
            ends.append(best[:, :, -1].min(axis=1))
            lasts.append(best[:, :, -1].argmin(axis=1))
        self.values, self.lasts = np.stack(ends, axis=1), np.stack(lasts, axis=1)

    def steps_of(self, block: int, updates: int) -> list[int]:
        after, last = self.values.shape[1], int(self.lasts[block, updates - 1])
        chosen = [last]
        for befores in reversed(self.befores[: updates - 1]):
            after, last = last, int(befores[block, last, after])
            chosen.append(last)
        return list(reversed(chosen))


def _until(costs: np.ndarray) -> np.ndarray:
    """Costs [..., a, e] of a .. e -> [..., a, s] of a .. s - 1, with s up to K; infinite where s <= a."""
    steps = costs.shape[-1]
    shifted = np.full((*costs.shape[:-1], steps + 1), np.inf)
    shifted[..., 1:] = np.where(np.triu(np.ones((steps, steps), bool)), costs, np.inf)
    return shifted
