"""What reusing block outputs costs, as numbers: how they are measured is in `bac.sensitivity`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Extrapolation is for coarse grids: its costs have one more index, [blocks, steps, steps, steps] numbers.
MAX_EXTRAPOLATION_STEPS = 50


@dataclass(frozen=True)
class HoldingCosts:
    """Costs of reuse, averaged over states; without unit, see `bac.sensitivity`.

    Attributes:
        blocks: names in execution order.
        hold: [blocks, K, K]; entry a, e is what holding the output of step a up to step e costs; zero for e <= a.
        extrapolate: [blocks, K, K, K]; entry a', a, e is what continuing the line through the outputs of steps a' < a
            up to step e costs. None where the chain draws noise between its steps, or has too many of them.
    """

    blocks: tuple[str, ...]
    hold: np.ndarray
    extrapolate: np.ndarray | None = None

    @property
    def steps(self) -> int:
        return self.hold.shape[-1]


class CostSum:
    """Adds up what reuse costs at one state after the other; see `bac.sensitivity` for the formula.

    Args:
        lines: whether lines through outputs have costs, too: where no noise is drawn between the steps. They are left
            out above `MAX_EXTRAPOLATION_STEPS`.
    """

    def __init__(self, blocks: tuple[str, ...], steps: int, lines: bool):
        self.blocks, self.states = blocks, 0
        self.hold = np.zeros((len(blocks), steps, steps))
        self.line: np.ndarray | None = None
        if lines and steps <= MAX_EXTRAPOLATION_STEPS:
            self.line = np.zeros((len(blocks), steps, steps, steps))

    def add(self, moved: np.ndarray, what: str) -> None:
        """A state's moves of v . actions, [blocks, P, K, K]: entry a, k is that of using f(a) in place of f(k).

        Raises:
            ValueError: they are not finite; `what` names the state.
        """
        if not np.isfinite(moved).all():
            raise ValueError(f"the gradients of {what} are not finite; check the policy's inputs and weights")
        own = np.square(np.cumsum(moved, axis=-1)).mean(axis=1)
        size = float(np.diagonal(own, 1, axis1=1, axis2=2).sum()) or 1.0  # 0: nothing matters at this state
        self.hold += own / size
        if self.line is not None:
            for block in range(len(self.blocks)):
                self.line[block] += np.square(_line_sums(moved[block])).mean(axis=0) / size
        self.states += 1

    def mean(self) -> HoldingCosts:
        """The costs, averaged over the states."""
        return HoldingCosts(
            self.blocks, self.hold / self.states, None if self.line is None else self.line / self.states
        )


def _line_sums(moved: np.ndarray) -> np.ndarray:
    """One block's [P, K, K] (step a, step k) -> [P, K, K, K] (a', a, e): the line through a' and a, up to e.

    The line is off by f(a) - f(k) + (k - a) / (a - a') (f(a) - f(a')).
    """
    draws, steps, _ = moved.shape
    sums = np.zeros((draws, steps, steps, steps))
    k = np.arange(steps)
    for a in range(1, steps):
        for before in range(a):
            # of the steps k > a: g(k) . (f(a) - f(a')) is the difference of two holding errors
            turn = (k - a) / (a - before) * (moved[:, a] - moved[:, before])
            sums[:, before, a, a + 1 :] = np.cumsum((moved[:, a] + turn)[:, a + 1 :], axis=-1)
    return sums
