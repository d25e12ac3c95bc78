"""Bubbling Union Algorithm (BUA): repair block-wise schedules so that errors do not surge (arXiv 2506.13456).

An FFN that refreshes while a block before it still serves a stale value recomputes on a wrong input and amplifies
the error. BUA therefore picks the blocks whose caching errors are largest and lets each of them update whenever an
FFN downstream of it does: the FFNs' update steps bubble up. Downstream is defined in `bac.blocks.downstream_ffns`.

BAC, the whole method, is block-wise ACS followed by BUA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bac.acs import blockwise_acs
from bac.blocks import downstream_ffns, execution_order
from bac.provenance import Provenance
from bac.schedule import Schedule


def error_scores(l1_matrices: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Caching error of each block: its mean absolute feature difference over all pairs of different steps.

    Args:
        l1_matrices: block name -> [K, K], K >= 2, pairwise ``l1`` distances of the uncached run
            (see `bac.similarity`); absolute, not relative, so blocks with large outputs score high.

    Returns:
        block name -> error, in execution order.
    """
    scores = {}
    for name in execution_order(l1_matrices):
        matrix = np.asarray(l1_matrices[name], dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
            raise ValueError(f"{name}: an l1 matrix must be [steps, steps] with 2 or more steps, got {matrix.shape}")
        if not np.isfinite(matrix).all() or (matrix < 0).any() or np.diagonal(matrix).any():
            raise ValueError(
                f"{name}: an l1 matrix must hold finite distances with zeros on its diagonal; "
                "pass the matrices of metric 'l1', whatever metric ACS uses"
            )
        scores[name] = float(matrix[~np.eye(len(matrix), dtype=bool)].mean())
    return scores


def select_blocks(scores: Mapping[str, float], top_k: int) -> tuple[str, ...]:
    """The ``top_k`` blocks with the largest errors, worst first; of equal ones the earlier in execution order.

    Raises:
        ValueError: ``top_k`` is negative or exceeds the number of blocks, or a score is NaN.
    """
    order = execution_order(scores)
    if isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or not 0 <= top_k <= len(order):
        raise ValueError(f"top_k must be an integer in 0..{len(order)} (the number of blocks), got {top_k!r}")
    undefined = [name for name in order if np.isnan(scores[name])]
    if undefined:
        raise ValueError(f"error score of {undefined[0]} is NaN; profile again on finite inputs")
    return tuple(sorted(order, key=lambda name: -scores[name])[:top_k])  # sorted() keeps the order of equals


def bubbling_union(
    schedule: Schedule, scores: Mapping[str, float], top_k: int, *, forced_refresh: Sequence[int] = ()
) -> Schedule:
    """Let the worst blocks update whenever an FFN downstream of them does.

    Every chosen block additionally updates at each update step of each FFN of its own or a later layer. The unions
    take the FFNs' steps as they are in ``schedule``, before any union; blocks that are not chosen keep their steps.

    Args:
        schedule: block-wise schedule to repair.
        scores: block name -> error, for exactly the blocks of the schedule (see `error_scores`).
        top_k: number of blocks to repair; 0 leaves the schedule as it is. The paper uses 5, on the robot 3.
        forced_refresh: steps at which every block updates in addition (the released code adds the last one).

    Returns:
        The repaired schedule; its updates include those of ``schedule``.
    """
    if set(scores) != set(schedule.blocks):
        different = sorted(set(scores) ^ set(schedule.blocks))
        raise ValueError(f"scores must name exactly the blocks of the schedule; only one has {', '.join(different)}")
    chosen = select_blocks(scores, top_k)
    updates = schedule.updates.copy()
    for name in chosen:
        for ffn in downstream_ffns(name, schedule.blocks):
            updates[:, schedule.blocks.index(name)] |= schedule.updates[:, schedule.blocks.index(ffn)]
    recorded = replace(schedule.provenance, method="bac", top_k=int(top_k), repaired=chosen)
    return Schedule(updates, schedule.blocks, recorded).with_refresh(forced_refresh)


def bac(
    matrices: Mapping[str, np.ndarray],
    l1_matrices: Mapping[str, np.ndarray],
    budget: int,
    top_k: int = 5,
    metric: str = "cosine",
    objective: str = "cached_to_skipped",
    *,
    forced_refresh: Sequence[int] = (),
    provenance: Provenance | None = None,
) -> Schedule:
    """Block-wise Adaptive Caching: block-wise ACS, then BUA.

    Args:
        matrices: block name -> [K, K] of ``metric``, which ACS optimises.
        l1_matrices: block name -> [K, K] of ``l1``, which BUA scores errors by.
        budget: updates of each block before the repair.
        top_k: number of blocks to repair.
        metric, objective: see `bac.acs.acs_steps`.
        forced_refresh, provenance: see `bac.acs.blockwise_acs`.
    """
    schedule = blockwise_acs(matrices, budget, metric, objective, provenance=provenance)
    return bubbling_union(schedule, error_scores(l1_matrices), top_k, forced_refresh=forced_refresh)
