"""Exact arithmetic of the denoiser, counted per block. One multiply-accumulate (MAC) is two FLOPs.

Counted: every matrix product (projections, attention scores and sums, feed-forward, embeddings, head, condition
encoder). Not counted: normalisation, activations, softmax and additions, below 1 % of the total; the vision encoder,
which is not part of the denoiser. This is the arithmetic of the *method*: a runtime may do less of it (see
`bac.folding`) or the same faster; FLOPs and wall-clock are never converted into each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from bac.blocks import parse
from bac.denoiser import Denoiser, model_blocks
from bac.schedule import Schedule


@dataclass(frozen=True)
class Cost:
    """MACs of one sample.

    Attributes:
        blocks: MACs of one update of each block.
        per_step: MACs of every denoising step, whatever is cached: embeddings, condition encoder, head.
    """

    blocks: dict[str, int]
    per_step: int

    def flops(self, schedule: Schedule) -> int:
        """FLOPs of one action chunk under `schedule`."""
        return 2 * schedule.macs(self.blocks, per_step=self.per_step)


def hoisted_cost(model: Denoiser, tokens: int | None = None) -> Cost:
    """What the planned and compiled runtimes compute inside the loop: no condition encoder, cross-attention folded.

    Args:
        tokens: of a trajectory, that are denoised (see `bac.horizon`); None: its full horizon.
    """
    d, denoised, rows = model.n_emb, *_counts(model, tokens)
    folded = 2 * rows * model.n_head * model.T_cond * d
    costs = denoiser_cost(model, tokens).blocks
    blocks = {name: folded if parse(name).kind == "ca" else macs for name, macs in costs.items()}
    return Cost(blocks, denoised * (model.input_dim * d + d * model.output_dim))


def _counts(model: Denoiser, tokens: int | None) -> tuple[int, int]:
    """Tokens of a trajectory that are denoised, and rows of the trunk for them: a time token may be among these."""
    denoised = model.horizon if tokens is None else tokens
    if not 1 <= denoised <= model.horizon:
        raise ValueError(f"tokens={tokens} is not possible: use 1 to {model.horizon}")
    return denoised, denoised + model.T - model.horizon


def denoiser_cost(model: Denoiser, tokens: int | None = None) -> Cost:
    """Counts `model`; the condition tokens are encoded whatever the number of trajectory tokens.

    Args:
        tokens: of a trajectory, that are denoised (see `bac.horizon`); None: its full horizon.
    """
    d, memory, inner = model.n_emb, model.T_cond, 4 * model.n_emb
    denoised, rows = _counts(model, tokens)
    attention = 2 * rows * rows * d  # scores and weighted sum
    costs = {
        "sa": rows * d * 3 * d + attention + rows * d * d,
        "ca": rows * d * d + memory * d * 2 * d + 2 * rows * memory * d + rows * d * d,
        "ffn": 2 * rows * d * inner,
    }
    per_step = denoised * (model.input_dim * d + d * model.output_dim)
    if model.obs_as_cond:
        per_step += model.n_obs_steps * model.cond_dim * d
    if not model.encoder_only:
        if model.n_cond_layers:
            layer = memory * d * 3 * d + 2 * memory * memory * d + memory * d * d + 2 * memory * d * inner
            per_step += model.n_cond_layers * layer
        else:
            per_step += 2 * memory * d * inner
    return Cost({name: costs[parse(name).kind] for name in model_blocks(model)}, per_step)
