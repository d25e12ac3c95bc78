"""How far executed actions are from the full policy's, in the action's own units, dimension by dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bac.distances import NEGLIGIBLE

RESAMPLES = 1000


@dataclass(frozen=True)
class Differences:
    """Of executed chunks, L actions of D dimensions, in the action's units.

    Attributes:
        error: [L, D], mean absolute difference from the full policy under the same noise.
        spread: [L, D], mean absolute difference between two noise seeds of the full policy.
        p95: [D], 95th percentile of the error.
        bias, bias_low, bias_high: [D], mean difference, with its 95 % percentile bootstrap interval over states.
        scale: [D], half the range of actions seen in training.
    """

    error: np.ndarray
    spread: np.ndarray
    p95: np.ndarray
    bias: np.ndarray
    bias_low: np.ndarray
    bias_high: np.ndarray
    scale: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """[D], over the whole chunk."""
        return self.error.mean(0)

    @property
    def spreads(self) -> np.ndarray:
        return self.spread.mean(0)

    @property
    def ratios(self) -> np.ndarray:
        """[D], error over spread; a spread below `NEGLIGIBLE` of half the range counts as that much."""
        spreads = np.maximum(self.spreads, NEGLIGIBLE * self.scale)
        return np.divide(self.errors, spreads, out=np.where(self.errors > 0, np.inf, 0.0), where=spreads > 0)

    @property
    def worst(self) -> int:
        """The dimension with the largest ratio."""
        return int(self.ratios.argmax())

    def to_dict(self) -> dict[str, Any]:
        return {
            "error": self.errors.tolist(),
            "spread": self.spreads.tolist(),
            "ratio": self.ratios.tolist(),
            "error_p95": self.p95.tolist(),
            "bias": self.bias.tolist(),
            "bias_interval_95": np.stack([self.bias_low, self.bias_high], 1).tolist(),
            "error_by_position": self.error.tolist(),
            "spread_by_position": self.spread.tolist(),
        }


def differences(method: np.ndarray, full: np.ndarray, scale: np.ndarray, seed: int = 0) -> Differences:
    """Compares chunks [N, S, L, D] of N states and S noise seeds, paired by noise, in the action's units.

    Args:
        scale: [D], half the range of each dimension.
        seed: of the bootstrap.
    """
    method, full = method.astype(np.float64), full.astype(np.float64)
    difference, samples = method - full, full.shape[1]
    unlike = [(a, b) for a in range(samples) for b in range(a)]
    spread = np.mean([np.abs(full[:, a] - full[:, b]).mean(0) for a, b in unlike], axis=0)  # [L, D]
    by_state = difference.mean((1, 2))  # [N, D]
    drawn = np.random.default_rng(seed).integers(len(by_state), size=(RESAMPLES, len(by_state)))
    low, high = np.quantile(by_state[drawn].mean(1), [0.025, 0.975], axis=0)
    return Differences(
        error=np.abs(difference).mean((0, 1)),
        spread=spread,
        p95=np.quantile(np.abs(difference), 0.95, axis=(0, 1, 2)),
        bias=by_state.mean(0),
        bias_low=low,
        bias_high=high,
        scale=np.asarray(scale, np.float64),
    )


def percentiles(milliseconds: Any) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(milliseconds, q)), 3) for q in (50, 95, 99)}


def missed(milliseconds: Any, deadline_ms: float) -> float:
    """Share of calls that take longer."""
    return float((np.asarray(milliseconds) > deadline_ms).mean())
