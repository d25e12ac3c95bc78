"""The best choice of one option per block within a budget, exactly.

Options have a whole price and a value to be small. Choices for a set of blocks are kept as their *front*: those that no
other one beats in price and value. Fronts of two sets combine to the front of both, so nothing good is lost; whole
prices keep them short, as many choices cost the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Front:
    """Choices that no other one beats: ascending prices, strictly falling values.

    Attributes:
        prices, values: int64 and float64 [n].
        block, picks: of a single block: its position, and the option of each choice [n].
        parts, indices: of several blocks: the two fronts joined here, and the index of each choice in both [2, n].
    """

    prices: np.ndarray
    values: np.ndarray
    block: int | None = None
    picks: np.ndarray | None = None
    parts: tuple[Front, Front] | None = None
    indices: np.ndarray | None = None

    @classmethod
    def of_block(cls, block: int, prices: np.ndarray, values: np.ndarray) -> Front:
        kept = _unbeaten(prices, values)
        return cls(prices[kept], values[kept], block=block, picks=kept)

    def joined(self, other: Front, slack: int) -> Front:
        """The front of the choices for both that cost at most `slack` more than the cheapest one."""
        prices = (self.prices[:, None] + other.prices).ravel()
        values = (self.values[:, None] + other.values).ravel()
        affordable = np.flatnonzero(prices <= prices[0] + slack)
        kept = affordable[_unbeaten(prices[affordable], values[affordable])]
        indices = np.stack(np.unravel_index(kept, (len(self.prices), len(other.prices))))
        return Front(prices[kept], values[kept], parts=(self, other), indices=indices)

    def choice(self, index: int) -> dict[int, int]:
        """Block -> picked option."""
        if self.parts is None or self.indices is None:
            assert self.block is not None and self.picks is not None
            return {self.block: int(self.picks[index])}
        first, second = (part.choice(int(row[index])) for part, row in zip(self.parts, self.indices))
        return {**first, **second}


def best_choice(prices: Sequence[int], values: np.ndarray, budget: int) -> tuple[list[int], float]:
    """The number of updates of each block that gives the least total within a budget.

    Args:
        prices: of one update of each block, whole numbers above 0.
        values: [blocks, K]; the value with m + 1 updates, which cost m + 1 times the price.
        budget: the most that all updates may cost; no less than one update of every block.

    Returns:
        The numbers of updates, and the total value.
    """
    slack = budget - sum(prices)
    counts = np.arange(1, values.shape[1] + 1, dtype=np.int64)
    groups: dict[int, Front] = {}  # blocks of one price first: their totals coincide, which keeps the front short
    for block, price in enumerate(prices):
        front = Front.of_block(block, price * counts, values[block])
        groups[price] = groups[price].joined(front, slack) if price in groups else front
    total, *others = groups.values()
    for front in others:
        total = total.joined(front, slack)
    chosen = total.choice(len(total.prices) - 1)  # the dearest is the best
    return [chosen[block] + 1 for block in range(len(prices))], float(total.values[-1])


def _unbeaten(prices: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Indices of the choices that no other one beats, by ascending price; of equal ones the first."""
    order = np.lexsort((values, prices))
    lowest = np.minimum.accumulate(values[order])
    better = np.ones(len(order), bool)
    better[1:] = values[order][1:] < lowest[:-1]
    return order[better]
