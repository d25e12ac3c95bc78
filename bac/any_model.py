"""Measurements of any transformer denoiser in its own loop: similarities, holding costs, arithmetic.

They give what a schedule is made from: `bac.bua.bac` takes the matrices, `bac.sacs.sacs` costs and prices. The loop is
met as a function `run(i)`, which denoises the i-th observation, or batch of them, with noise of its own choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bac.cached_model import CacheError, cache, observing
from bac.flops import Cost
from bac.holding import CostSum, HoldingCosts
from bac.profiling import FeatureSimilarity
from bac.reused import feature_of, with_feature
from bac.schedule import Schedule

#: run(i) denoises the i-th observation in the model's own loop
Run = Callable[[int], Any]


@torch.no_grad()
def profile_model(
    model: nn.Module, blocks: Sequence[str], steps: int, run: Run, runs: int, method: str = "forward"
) -> dict[str, dict[str, np.ndarray]]:
    """Compares each block's outputs between the steps of a loop (paper, section 3.2).

    Args:
        blocks: see `bac.adapters.find_blocks`.
        steps: K, calls of the model in one run.
        run: called with 0 ... runs - 1; the outputs of each block are [B, ...], the same B at every step.
        method: of the model, that the loop calls once per step.

    Returns:
        metric -> block -> matrix [K, K], averaged over all that was denoised; see `bac.profiling.profile_features`.

    Raises:
        CacheError: a run is not of K steps, or see `bac.cache`.
    """
    similarity = FeatureSimilarity(tuple(blocks), steps)
    with cache(model, Schedule.full(blocks, steps), method=method, around=observing(similarity.observe)) as cached:
        for index in range(runs):
            with cached.chunk():
                run(index)
            similarity.finish_batch()
    return similarity.matrices()


def loop_costs(
    model: nn.Module,
    blocks: Sequence[str],
    steps: int,
    run: Callable[[int], Tensor],
    runs: int,
    draws: int = 4,
    seed: int = 0,
    deterministic: bool = False,
    method: str = "forward",
) -> HoldingCosts:
    """What reuse costs the actions of a loop, to first order: `bac.sensitivity.holding_costs` for any model.

    The whole loop is one graph of autograd, whose memory grows with the number of steps.

    Args:
        run: called with 0 ... runs - 1; gives the executed actions of one observation, [1, ...], and lets gradients
            through: its loop is free of `torch.no_grad()`.
        draws: directions per observation.
        seed: of the directions.
        deterministic: whether the loop adds no noise between its steps; then lines through outputs have costs, too.

    Raises:
        CacheError: the actions have no gradient, a run is not of K steps, or see `bac.cache`.
        ValueError: the gradients are not finite.
    """
    blocks = tuple(blocks)
    costs = CostSum(blocks, steps, deterministic)
    outputs: dict[str, list[Tensor]] = {block: [] for block in blocks}  # of the steps so far

    def record(step: int, block: str, compute: Callable[[], Any]) -> Any:
        output = compute()
        feature = feature_of(output, block)
        if not feature.requires_grad:  # frozen weights, and nothing before it that is differentiated
            feature = feature.detach().requires_grad_()
        outputs[block].append(feature)
        return with_feature(output, feature)

    with cache(model, Schedule.full(blocks, steps), method=method, around=record) as cached:
        for index in range(runs):
            with torch.enable_grad(), cached.chunk():
                actions = run(index)
            if not isinstance(actions, Tensor) or not actions.requires_grad:
                raise CacheError(
                    "no gradient reaches the actions: run(i) has to return them as a tensor, and its loop to work "
                    "without torch.no_grad() and torch.inference_mode()"
                )
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            directions = [torch.randn(actions.shape, generator=generator).to(actions) for _ in range(draws)]
            costs.add(_moved(actions, outputs, directions), f"observation {index}")
            for recorded in outputs.values():
                recorded.clear()
    return costs.mean()


def _moved(actions: Tensor, outputs: dict[str, list[Tensor]], directions: list[Tensor]) -> np.ndarray:
    """Moves of v . actions, [blocks, P, K, K]: entry a, k is g(k) . (f(a) - f(k)); zero for a >= k."""
    recorded = [feature for features in outputs.values() for feature in features]
    steps = len(recorded) // len(outputs)
    moved = np.zeros((len(outputs), len(directions), steps, steps))
    for draw, direction in enumerate(directions):
        gradients = torch.autograd.grad(
            actions, recorded, direction, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for block, features in enumerate(outputs.values()):
            f = torch.stack([feature.detach().flatten() for feature in features])  # [K, n]
            g = torch.stack([g.flatten() for g in gradients[block * steps : (block + 1) * steps]])
            dots = f @ g.t()  # [a, k]
            moved[block, draw] = (dots - dots.diagonal()).triu(1).double().cpu().numpy()
    return moved


@torch.no_grad()
def model_cost(model: nn.Module, blocks: Sequence[str], call: Callable[[], Any], method: str = "forward") -> Cost:
    """Arithmetic of one step, counted by PyTorch while it runs: matrix products and attention, see `bac.flops`.

    Args:
        call: calls the model once, as a loop does; with a batch of one, the counts are of one sample.
    """
    blocks = tuple(blocks)
    with _countable(), FlopCounterMode(display=False) as whole:
        call()
    macs: dict[str, int] = {}

    def count(step: int, block: str, compute: Callable[[], Any]) -> Any:
        with FlopCounterMode(display=False) as counter:
            output = compute()
        macs[block] = counter.get_total_flops() // 2
        return output

    with _countable(), cache(model, Schedule.full(blocks, 1), method=method, around=count) as cached, cached.chunk():
        call()
    return Cost(macs, whole.get_total_flops() // 2 - sum(macs.values()))


@contextmanager
def _countable() -> Iterator[None]:
    """Attention as matrix products: PyTorch does not count all of its fused kernels."""
    switch: Any = getattr(torch.backends, "mha", None)  # since PyTorch 2.3
    fused = switch is not None and switch.get_fastpath_enabled()
    if fused:
        switch.set_fastpath_enabled(False)
    try:
        with _as_products():
            yield
    finally:
        if fused:
            switch.set_fastpath_enabled(True)


def _as_products() -> Any:
    """`scaled_dot_product_attention` without its fused kernels."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # before PyTorch 2.3
        return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_math=True, enable_mem_efficient=False)
    return sdpa_kernel(SDPBackend.MATH)
