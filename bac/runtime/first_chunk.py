"""How far a kernel's first chunk may be from the eager loop's: GPUs and their compilers are many."""

from __future__ import annotations

from torch import Tensor

from bac.solver import COLUMNS, Solver

#: largest difference relative to the largest entry (at least 1): rounding stays far below, and where a solver
#: multiplies what the model says by much, below so many times that
TOLERANCE, PER_GAIN = 1e-4, 5e-6


def difference(out: Tensor, expected: Tensor) -> float:
    """The largest difference of two chunks [B, T, D], relative to the largest expected entry (at least 1)."""
    return ((out - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def allowed(solver: Solver) -> float:
    """The largest difference that is rounding."""
    m_gain, to_x0 = (solver.table[:, COLUMNS.index(name)] for name in ("m_gain", "to_x0"))
    return max(TOLERANCE, float(PER_GAIN * abs(m_gain * to_x0).max()))
