"""Adaptive Caching Scheduler (ACS): the best update steps of one block for a given budget (arXiv 2506.13456).

M update steps 0 = c_1 < ... < c_M cut the K denoising steps into M held intervals [a, b]: the block updates at a
and its output is reused up to b. ACS chooses the cut whose intervals score best in total, exactly, by dynamic
programming over (number of intervals, last step). Two objectives score an interval, both from the similarity
matrix s of the block (see `bac.similarity`):

* ``cached_to_skipped`` (the default, and what the released code optimises): sum of s[a, t] for t = a .. b, that is
  how alike the cached feature is to the features it stands in for.
* ``consecutive`` (the paper's formula): phi(a, b) = sum of s[k, k-1] for k = a+1 .. b, that is how little the
  feature changes from step to step. It knows nothing of drift, so it only avoids the M - 1 largest single changes.

Similarities are maximised, distances minimised. Exact ties go to the smaller step, from the last interval back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bac.blocks import Block, BlockId, execution_order, parse
from bac.provenance import Provenance
from bac.schedule import Schedule
from bac.similarity import get_metric

OBJECTIVES = ("cached_to_skipped", "consecutive")
DIAGONAL_TOLERANCE = 1e-3  # generous to stored half precision, far below a wrong metric's diagonal


def acs_steps(
    matrix: np.ndarray, budget: int, metric: str = "cosine", objective: str = "cached_to_skipped"
) -> list[int]:
    """Optimal update steps of one block.

    Args:
        matrix: [K, K], row = cached step, column = step served by it.
        budget: number M of update steps, 1 .. K, step 0 included.
        metric: what the matrix holds; decides whether to maximise or minimise.
        objective: one of `OBJECTIVES`.

    Returns:
        M ascending steps, the first of them 0. Takes O(M K^2) time and O(K^2) memory.

    Raises:
        ValueError: budget out of range, or a matrix that is not square, not finite, or not of this metric.
    """
    maximise = get_metric(metric).maximise
    matrix = _check_matrix(matrix, metric)
    n_steps = len(matrix)
    _check_budget(budget, n_steps)
    score = _interval_scores(matrix, objective)  # [a, b]
    if not maximise:
        score = -score
    score[np.tril_indices(n_steps, -1)] = -np.inf  # an interval ends no earlier than it starts

    best = score[0]  # [b]: best total of the intervals covering 0 .. b, here a single one
    starts = []  # per further interval, [b]: where the last of them starts
    for _ in range(budget - 1):
        # The last interval starts at a, and the ones before it end at a - 1.
        before = np.concatenate([[-np.inf], best[:-1]])
        total = before[:, None] + score  # [a, b]
        starts.append(total.argmax(axis=0))  # argmax returns the first, smallest, of equal starts
        best = total.max(axis=0)

    chosen, end = [], n_steps - 1
    for start in reversed(starts):
        chosen.append(int(start[end]))
        end = chosen[-1] - 1
    return [0, *reversed(chosen)]


def acs_value(matrix: np.ndarray, steps: Sequence[int], objective: str = "cached_to_skipped") -> float:
    """Total of an objective for given update steps, in the unit of the matrix, whether to maximise or minimise.

    Args:
        matrix: [K, K], row = cached step, column = step served by it.
        steps: ascending update steps, the first of them 0.
        objective: one of `OBJECTIVES`.
    """
    matrix = _check_matrix(matrix)
    starts = list(steps)
    if not starts or starts[0] != 0 or starts[-1] >= len(matrix) or any(a >= b for a, b in zip(starts, starts[1:])):
        raise ValueError(f"steps must ascend from 0 and stay below {len(matrix)}, got {starts}")
    ends = [a - 1 for a in starts[1:]] + [len(matrix) - 1]
    return float(_interval_scores(matrix, objective)[starts, ends].sum())


def blockwise_acs(
    matrices: Mapping[str, np.ndarray],
    budget: int,
    metric: str = "cosine",
    objective: str = "cached_to_skipped",
    *,
    forced_refresh: Sequence[int] = (),
    provenance: Provenance | None = None,
) -> Schedule:
    """Block-wise ACS: each block gets its own optimal update steps; no repair of errors between blocks.

    Args:
        matrices: block name -> [K, K].
        budget: number of updates of each block.
        metric, objective: see `acs_steps`.
        forced_refresh: steps at which every block updates in addition (the released code adds the last one).
        provenance: what is known about the profile; method and arguments are filled in.
    """
    blocks = execution_order(matrices)
    shapes = {np.shape(matrices[name]) for name in blocks}
    if len(shapes) > 1:
        raise ValueError(f"all blocks need a matrix of the same size, got shapes {sorted(shapes)}")
    chosen: dict[str, list[int]] = {}
    for name in blocks:
        try:
            chosen[name] = acs_steps(matrices[name], budget, metric, objective)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    recorded = replace(
        provenance or Provenance(), method="blockwise_acs", budget=budget, metric=metric, objective=objective
    )
    return Schedule.from_steps(chosen, len(matrices[blocks[0]]), recorded).with_refresh(forced_refresh)


def unified_acs(
    matrices: Mapping[str, np.ndarray],
    budget: int,
    metric: str = "cosine",
    objective: str = "cached_to_skipped",
    *,
    source: str | None = None,
    blocks: Sequence[str] | None = None,
    forced_refresh: Sequence[int] = (),
    provenance: Provenance | None = None,
) -> Schedule:
    """Unified ACS: all blocks share the optimal update steps of one block.

    Args:
        matrices: block name -> [K, K]; only the source's is used.
        budget: number of updates of each block.
        metric, objective: see `acs_steps`.
        source: the block whose steps are shared; default the first block that computes, in a Transformer Diffusion
            Policy the self-attention of layer 0, as in the paper.
        blocks: the blocks to schedule; default all that have a matrix.
        forced_refresh, provenance: see `blockwise_acs`.
    """
    blocks = execution_order(matrices if blocks is None else blocks)
    if source is None:
        first = parse(blocks[0])
        source = first.name if isinstance(first, Block) else BlockId(first.stack, 0, "sa").name
    if source not in matrices:
        raise ValueError(f"no similarity matrix for {source!r}, whose steps all blocks are to share")
    chosen = acs_steps(matrices[source], budget, metric, objective)
    base = provenance or Provenance()
    recorded = replace(
        base,
        method="unified_acs",
        budget=budget,
        metric=metric,
        objective=objective,
        extras={**base.extras, "source": source},
    )
    n_steps = len(matrices[source])
    return Schedule.from_steps(dict.fromkeys(blocks, chosen), n_steps, recorded).with_refresh(forced_refresh)


def _interval_scores(matrix: np.ndarray, objective: str) -> np.ndarray:
    """Score [a, b] of holding step a's output up to step b; entries with b < a mean nothing."""
    if objective == "cached_to_skipped":
        # Zeros left of the diagonal make the running sum of row a start at a, without any cancellation.
        return np.cumsum(np.triu(matrix), axis=1)
    if objective == "consecutive":
        change = np.concatenate([[0.0], np.diagonal(matrix, -1)])  # [k] = s[k, k-1]
        return np.cumsum(np.triu(np.broadcast_to(change, matrix.shape), 1), axis=1)
    raise ValueError(f"unknown objective {objective!r}: choose one of {', '.join(OBJECTIVES)}")


def _check_matrix(matrix: np.ndarray, metric: str | None = None) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"a similarity matrix must be square [steps, steps], got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("the similarity matrix contains NaN or infinite values; profile again on finite inputs")
    if metric is not None:
        identical = get_metric(metric).identical
        off = np.abs(np.diagonal(matrix) - identical).max()
        if off > DIAGONAL_TOLERANCE * max(1.0 if identical else 0.0, np.abs(matrix).max()):
            raise ValueError(
                f"the matrix does not hold metric {metric!r}: its diagonal, where a step is compared with itself, is "
                f"off {identical:g} by {off:.3g}. Pass the metric it was computed with."
            )
    return matrix


def _check_budget(budget: int, n_steps: int) -> None:
    if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or not 1 <= budget <= n_steps:
        raise ValueError(
            f"budget must be an integer in 1..{n_steps} (updates per block out of {n_steps} steps), got {budget!r}"
        )
