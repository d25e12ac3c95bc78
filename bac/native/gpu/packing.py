"""A model, its plan and its sampler as the kernel reads them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bac.folding import Folded, Folding
from bac.native.gpu.structs import Params
from bac.plan import Plan
from bac.solver import COLUMNS, Solver


class Pointers:
    """Tensors on one device that are kept alive as long as their addresses are used."""

    def __init__(self, device: torch.device):
        self.device = device
        self._kept: list[Tensor] = []

    def __call__(self, tensor: Tensor, dtype: torch.dtype = torch.float32) -> int:
        """The address of a tensor's numbers, contiguous and in the dtype."""
        tensor = tensor.detach().to(self.device, dtype).contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def room(self, *shape: int, dtype: torch.dtype = torch.float32) -> int:
        """The address of zeros."""
        return self(torch.zeros(shape, device=self.device, dtype=dtype), dtype)


def deal_weights(layers: list[list[Tensor]], blocks: int) -> Tensor:
    """All numbers of the layers' matrices [qkv, output, up, down], those of one thread block after the other.

    A block has its rows of each matrix, layer by layer (see `Weights` of block.hpp).
    """
    parts = []
    for block in range(blocks):
        for matrices in layers:
            for matrix in matrices:
                rows = len(matrix)
                parts.append(matrix[rows * block // blocks : rows * (block + 1) // blocks].flatten())
    return torch.cat(parts)


def pack_model(model: object, tokens: int, half: bool, blocks: int, keep: Pointers) -> dict[str, int]:
    """Weights of a denoiser of the decoder form, `WEIGHTS` of structs.py, for `tokens` leading tokens."""
    layers = list(model.trunk.layers)  # type: ignore[attr-defined]
    matrices, biases, norms = [], [], []
    for layer in layers:
        linears = (layer.self_attn.out_proj, layer.linear1, layer.linear2)
        matrices.append([layer.self_attn.in_proj_weight, *(linear.weight for linear in linears)])
        biases.append(torch.cat([layer.self_attn.in_proj_bias, *(linear.bias for linear in linears)]))
        norms += [part for norm in (layer.norm1, layer.norm2, layer.norm3) for part in (norm.weight, norm.bias)]
    final, head, embed = model.ln_f, model.head, model.input_emb  # type: ignore[attr-defined]
    return {
        "weights": keep(deal_weights(matrices, blocks), torch.float16 if half else torch.float32),
        "bias": keep(torch.stack(biases)),
        "norms": keep(torch.stack(norms)),
        "cross_bias": keep(torch.stack([layer.multihead_attn.out_proj.bias for layer in layers])),
        "embed": keep(embed.weight.t()),
        "position": keep(model.pos_emb[0, :tokens] + embed.bias),  # type: ignore[attr-defined]
        "final_norm": keep(torch.stack([final.weight, final.bias])),
        "head": keep(head.weight),
        "head_bias": keep(head.bias),
    }


def pack_tables(model: object, tokens: int, observed: int, time: Folded, keep: Pointers) -> dict[str, int]:
    """`TABLES` of structs.py: masks, and the time tokens folded [L, K, H, 1, D]."""
    masks = model.mask, model.memory_mask  # type: ignore[attr-defined]
    sizes = (tokens, tokens), (tokens, 1 + observed)
    own, cross = (torch.zeros(size) if mask is None else mask[: size[0], : size[1]] for mask, size in zip(masks, sizes))
    return {
        "self_mask": keep(own),
        "cross_mask": keep(cross),
        "time_key": keep(time.key),
        "time_bias": keep(time.bias),
        "time_value": keep(time.value),
    }


def is_causal(mask: Tensor | None, tokens: int) -> bool:
    """Whether a mask lets none of the first tokens see a later one."""
    return mask is not None and bool(torch.isneginf(mask[:tokens, :tokens]).triu(1).sum() == tokens * (tokens - 1) // 2)


def pack_condition(model: object, observed: int, folding: Folding, keep: Pointers) -> dict[str, int]:
    """`CONDITION` of structs.py."""
    embed, (up, _, down) = model.cond_obs_emb, model.encoder  # type: ignore[attr-defined]
    position = model.cond_pos_emb[0, 1 : 1 + observed]  # type: ignore[attr-defined]
    return {
        "cond_embed": keep(embed.weight),
        "cond_position": keep(position + embed.bias),
        "cond_up": keep(up.weight),
        "cond_up_bias": keep(up.bias),
        "cond_down": keep(down.weight),
        "cond_down_bias": keep(down.bias),
        "key_value": keep(folding.key_value),
        "key_value_bias": keep(folding.key_value_bias),
        "fold_query": keep(folding.query),
        "query_bias": keep(folding.query_bias),
        "fold_out": keep(folding.out),
    }


def noise_rows(solver: Solver) -> np.ndarray:
    """int32 [K]: which of the draws a step adds, -1 for none (a scheduler may draw where it adds nothing)."""
    adds = solver.draws & (solver.table[:, COLUMNS.index("sigma")] != 0)
    return np.where(adds, np.cumsum(solver.draws) - 1, -1).astype(np.int32)


def pack_plan(plan: Plan, solver: Solver, keep: Pointers) -> dict[str, int | None]:
    """`PLAN` of structs.py."""
    rows: list[list[int]] = []
    starts = [0]
    for step in plan.steps:
        rows += [[s.start, s.stop, -1 if s.block is None else s.block, s.gap, int(s.store)] for s in step]
        starts.append(len(rows))
    return {
        "segments": keep(torch.tensor(rows), torch.int32),
        "segment_start": keep(torch.tensor(starts), torch.int32),
        "solver": keep(torch.from_numpy(solver.table)),
        "ahead": None if plan.ahead is None else keep(torch.from_numpy(plan.ahead)),
        "noise_row": keep(torch.from_numpy(noise_rows(solver)), torch.int32),
    }


def make_room(params: Params, extrapolates: bool, keep: Pointers) -> dict[str, int | None]:
    """`EXCHANGE` of structs.py: memory that thread blocks exchange results in."""
    layers, width, heads, observed, tile = params.layers, params.width, params.heads, params.observed, params.tile
    outputs = 3 * layers, params.tokens, width
    folded = layers, observed, heads, width
    return {
        "stored": keep.room(*outputs),
        "slopes": keep.room(*outputs) if extrapolates else None,
        "wide": keep.room(tile, 4 * width),
        "token": keep.room(tile, width),
        "projected": keep.room(layers, 2 * width, tile),
        "key": keep.room(*folded),
        "key_bias": keep.room(*folded[:-1]),
        "value": keep.room(*folded),
        "barrier": keep.room(1, dtype=torch.int32),
    }
