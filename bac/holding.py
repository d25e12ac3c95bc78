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
