"""How far a candidate's executed action chunks are from the full policy's, without a rollout.

Chunks are float [N, S, L, D]: N states, S noise seeds, L executed steps, D action dimensions, in normalised units; seed
s of a state is the same noise on both sides. Two kinds of numbers:

* *between laws*: relative energy distance (Szekely and Rizzo 2013), squared maximum mean discrepancy (MMD^2; Gretton et
  al. 2012, equation 3) and jitter ratios. They say whether the candidate acts like the full policy, not whether it
  repeats it.
* *under the same noise*: median and 95th percentile absolute error, capped RMS error, bias. They also count a
  candidate that samples the same law from its noise in another way.

As samples of equal noise depend on each other, averages between the two sides leave these pairs out, as averages within
a side leave out a sample with itself. That keeps them unbiased, and exactly zero for identical chunks. All numbers are
averages over states and screen candidates; which of them acts as well, only rollouts decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bac.errors import UserError
from bac.loop import Generators, SamplerInputs

#: a state's RMS error counts at most this much: a flip to another mode is one failure, however far the modes are apart
CAP = 0.1
#: RMS distance between chunks that is negligible: of a policy without spread not every rounding error is a large one
NEGLIGIBLE = 0.005


class DistanceError(UserError, ValueError):
    """Chunks that cannot be compared."""


@dataclass(frozen=True)
class Measure:
    """A number with its percentile bootstrap interval over states (95 % by default)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Screen:
    """What `screen` finds; errors and bias are in normalised units.

    Attributes:
        relative_energy: energy distance over the full policy's own mean pairwise distance, state by state. On Push-T
            losses are small below 0.1 and large above 0.5.
        mmd2: unbiased MMD^2, RBF kernel, bandwidth the median distance of a state's pooled samples.
        jitter_ratio: RMS second difference along the chunk, over the full policy's.
        jump_ratio: RMS jump from a chunk's last action to the next chunk's first, over the full policy's; None if
            consecutive states were not given.
        median_error, p95_error: percentiles of a state's absolute errors under the same noise.
        capped_rms_error: RMS error of a state under the same noise, at most `CAP`.
        bias: mean of candidate minus full policy, in the dimension where it is largest.
    """

    relative_energy: Measure
    mmd2: Measure
    jitter_ratio: Measure
    jump_ratio: Measure | None
    median_error: Measure
    p95_error: Measure
    capped_rms_error: Measure
    bias: Measure
    states: int
    samples: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def screen(
    candidate: np.ndarray,
    full: np.ndarray,
    before: Sequence[int] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Screen:
    """All distances between a candidate and the full policy.

    Args:
        candidate, full: [N, S, L, D], paired by noise along S.
        before: [N], which of the states came one chunk earlier in the same episode; -1 where it is not among them.
        resamples: of the bootstrap over states.
        seed: of the bootstrap.

    Raises:
        DistanceError: fewer than two states or samples, other shapes on both sides, or numbers that are not finite.
    """
    x, y = _checked(candidate, full)
    states, samples = x.shape[:2]
    rows = np.random.default_rng(seed).integers(states, size=(resamples, states))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]

    def over_states(above: np.ndarray, below: np.ndarray | None = None, root: bool = False) -> Measure:
        """The mean of `above` [N], or the quotient of two means, or its root."""

        def value(mean_above: Any, mean_below: Any) -> Any:
            quotient = _quotient(mean_above, mean_below)
            return np.sqrt(quotient) if root else quotient

        below = np.ones(states) if below is None else below
        low, high = np.quantile(value(above[rows].mean(1), below[rows].mean(1)), tails, method="nearest")
        return Measure(float(value(above.mean(), below.mean())), float(low), float(high))

    energy, spread = energy_distances(x, y)
    difference = x - y
    errors = np.abs(difference).reshape(states, -1)
    means = difference.mean((1, 2))  # [N, D]
    jumps = None if before is None else _jumps(x, y, before)
    return Screen(
        relative_energy=over_states(energy / np.maximum(spread, NEGLIGIBLE * np.sqrt(x[0, 0].size))),
        mmd2=over_states(mmd_squares(x, y)),
        jitter_ratio=over_states(_roughness(x), _roughness(y), root=True),
        jump_ratio=None if jumps is None else over_states(*jumps, root=True),
        median_error=over_states(np.median(errors, axis=1)),
        p95_error=over_states(np.quantile(errors, 0.95, axis=1)),
        capped_rms_error=over_states(capped_rms_errors(x, y)),
        bias=over_states(means[:, np.abs(means.mean(0)).argmax()]),
        states=states,
        samples=samples,
    )


def energy_distances(candidate: np.ndarray, full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each state, the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| and the full policy's spread E|Y - Y'|.

    |.| is the Euclidean norm of a chunk, unbiased means over pairs of unlike seeds.

    Args:
        candidate, full: [N, S, L, D], S at least 2.

    Returns:
        [N], [N]
    """
    within_x, between, within_y = (_unlike_mean(matrix) for matrix in _pair_distances(candidate, full))
    return 2 * between - within_x - within_y, within_y


def mmd_squares(candidate: np.ndarray, full: np.ndarray) -> np.ndarray:
    """Unbiased MMD^2 of each state [N], kernel exp(-d^2 / 2 h^2), h its pooled samples' median distance."""
    matrices = _pair_distances(candidate, full)
    unlike = ~np.eye(candidate.shape[1], dtype=bool)
    pooled = np.concatenate([matrix[:, unlike] for matrix in matrices], axis=1)
    width = np.maximum(np.median(pooled, axis=1), NEGLIGIBLE * np.sqrt(candidate[0, 0].size))[:, None, None]
    xx, xy, yy = (np.exp(-0.5 * (matrix / width) ** 2) for matrix in matrices)
    return _unlike_mean(xx) - 2 * _unlike_mean(xy) + _unlike_mean(yy)


def capped_rms_errors(candidate: np.ndarray, full: np.ndarray, cap: float = CAP, beyond: float = 0.0) -> np.ndarray:
    """Mean over seeds of a chunk's RMS error under the same noise, each at most `cap`; [N, S, L, D] -> [N].

    Args:
        beyond: part of what exceeds the cap that counts all the same.
    """
    errors = np.sqrt(((candidate - full) ** 2).mean((2, 3)))
    return (np.minimum(errors, cap) + beyond * np.maximum(errors - cap, 0)).mean(1)


class Sampler(Protocol):
    """Whatever turns inputs and noise into trajectories: a policy's own loop, or any runtime."""

    def __call__(self, inputs: Any, generator: Generators = None) -> Tensor: ...


class ChunkedPolicy(Protocol):
    """A policy that says which part of a trajectory it executes."""

    @property
    def chunk(self) -> slice: ...

    action_dim: int


def sample_chunks(
    sampler: Sampler, policy: ChunkedPolicy, inputs: SamplerInputs, seeds: Sequence[int], batch_size: int = 32
) -> np.ndarray:
    """Executed action chunks of every state under every noise seed.

    The noise of a state and seed is the same for every sampler and batch size, so two calls with equal seeds are
    paired.

    Args:
        inputs: of N states, as `policy.sampler_inputs` makes them.
        seeds: S noise seeds.

    Returns:
        float32 [N, S, L, D], in normalised units.

    Raises:
        DistanceError: no seeds, or the sampler's trajectories end before the chunk does.
    """
    if not seeds:
        raise DistanceError("no noise seeds to sample with: give at least one")
    chunks = []
    for seed in seeds:
        batches = []
        for start in range(0, len(inputs), batch_size):
            batch = inputs[start : start + batch_size]
            trajectory = sampler(batch, noise_of(seed, range(start, start + len(batch))))
            if trajectory.shape[1] < policy.chunk.stop:
                raise DistanceError(
                    f"the sampler gives {trajectory.shape[1]} tokens, the executed chunk ends at token "
                    f"{policy.chunk.stop}: sample with at least as many tokens"
                )
            batches.append(trajectory[:, policy.chunk, : policy.action_dim].float().cpu())
        chunks.append(torch.cat(batches))
    return torch.stack(chunks, dim=1).numpy()


def noise_of(seed: int, states: Iterable[int]) -> list[torch.Generator]:
    """One generator for each state, the same whatever the sampler and the batch."""
    generators = []
    for state in states:
        high, low = np.random.SeedSequence([seed, state]).generate_state(2, np.uint32)
        generators.append(torch.Generator().manual_seed(int(high) << 31 | int(low) >> 1))
    return generators


def _checked(candidate: np.ndarray, full: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(candidate, dtype=np.float64), np.asarray(full, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 4:
        raise DistanceError(
            f"both sides must be chunks [states, samples, steps, dims] of one shape, got {x.shape} and {y.shape}"
        )
    if x.shape[0] < 2 or x.shape[1] < 2 or x.size == 0:
        raise DistanceError(f"distances need at least two states and two noise seeds, got chunks {x.shape}")
    for name, chunks in (("candidate", x), ("full policy", y)):
        if not np.isfinite(chunks).all():
            raise DistanceError(f"the chunks of the {name} contain NaN or infinite values")
    return x, y


def _pair_distances(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Euclidean distances [N, S, S] of all pairs of chunks: x with x, x with y, y with y."""
    x, y = (chunks.reshape(*chunks.shape[:2], -1) for chunks in (x, y))
    return tuple(np.linalg.norm(a[:, :, None] - b[:, None], axis=-1) for a, b in ((x, x), (x, y), (y, y)))


def _unlike_mean(pairs: np.ndarray) -> np.ndarray:
    """Mean of [N, S, S] over pairs of unlike seeds."""
    samples = pairs.shape[1]
    return (pairs.sum((1, 2)) - np.trace(pairs, axis1=1, axis2=2)) / (samples * (samples - 1))


def _roughness(chunks: np.ndarray) -> np.ndarray:
    """Mean squared second difference along the chunk; [N, S, L, D] -> [N], zero for chunks of fewer than 3 steps."""
    second = np.diff(chunks, 2, axis=2)
    return (second**2).sum((2, 3)).mean(1)


def _jumps(x: np.ndarray, y: np.ndarray, before: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean squared jumps [N] of both sides from the chunk before, zero where there is none; None: nowhere is one."""
    earlier = np.asarray(before)
    if earlier.shape != (len(x),) or not ((earlier >= -1) & (earlier < len(x))).all():
        raise DistanceError(f"before must name a state, or -1, for each of the {len(x)} states")
    given = earlier >= 0
    if not given.any():
        return None
    first, second = (((chunks[:, :, 0] - chunks[earlier, :, -1]) ** 2).sum(-1).mean(1) * given for chunks in (x, y))
    return first, second


def _quotient(above: Any, below: Any) -> np.ndarray:
    """`above / below` where 0 / 0 is 0 and any other division by zero infinite."""
    above, below = np.broadcast_arrays(np.asarray(above, float), np.asarray(below, float))
    return np.divide(above, below, out=np.where(above == 0, 0.0, np.inf), where=below != 0)
