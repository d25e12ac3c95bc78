"""A model, its plan and its sampler as the kernel reads them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bac.folding import Folded, Folding
from bac.native.gpu.shares import plan_row
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

    def clear(self) -> None:
        """Sets all numbers to zero."""
        for tensor in self._kept:
            tensor.zero_()


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


def in_quads(activations: Tensor, groups: int) -> Tensor:
    """Activations [T, D] as the kernel exchanges them, [groups, D, 4]: three tokens, and a number that is not used."""
    tokens, width = activations.shape
    padded = activations.new_zeros(3 * groups, width)
    padded[:tokens] = activations
    quads = activations.new_zeros(groups, width, 4)
    quads[..., :3] = padded.view(groups, 3, width).transpose(1, 2)
    return quads


def pack_model(model: object, tokens: int, groups: int, half: bool, blocks: int, keep: Pointers) -> dict[str, int]:
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
        "position": keep(in_quads(model.pos_emb[0, :tokens] + embed.bias, groups)),  # type: ignore[attr-defined]
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
    """Whether a mask lets each of the first tokens see itself and all earlier ones, and nothing else."""
    if mask is None:
        return False
    own = mask[:tokens, :tokens].detach().cpu()
    return bool((own == torch.full_like(own, -torch.inf).triu(1)).all())


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


def plan_table(plan: Plan, solver: Solver, layers: int) -> np.ndarray:
    """The plan as `Step` and `Segment` of params.hpp, int32 [K + 1, quads, 4] with floats by their bits."""
    table = np.zeros((len(plan.steps) + 1, plan_row(layers), 4), np.int32)
    heads = table[:-1, :2].reshape(-1, 8)
    heads[:, :7] = solver.table.astype(np.float32).view(np.int32)
    heads[:, 7] = noise_rows(solver)
    table[:-1, :2] = heads.reshape(-1, 2, 4)
    sums = kept_sums(plan)
    computing = [
        (k, i, s.block) for k, step in enumerate(plan.steps) for i, s in enumerate(step) if s.block is not None
    ]
    following = dict(zip([place[:2] for place in computing], [place[::2] for place in computing[1:]]))
    for k, step in enumerate(plan.steps):
        for i, segment in enumerate(step):
            block = -1 if segment.block is None else segment.block
            next_step, next_block = following.get((k, i), (-1, -1))
            cross = (next_block // 3, next_step) if next_block % 3 == 1 else (-1, -1)
            store = int(segment.store) + sums.get((k, i), 0)
            row = (segment.start, segment.stop, block, segment.gap, store, *cross, 0)
            table[k, 2 + 2 * i : 4 + 2 * i] = np.array(row, np.int32).reshape(2, 4)
    return table


def kept_sums(plan: Plan) -> dict[tuple[int, int], int]:
    """Which runs' sums are kept (2) and taken again (4), by step and segment: a thread block has room for one sum.

    The room is for runs over most blocks, as in steps without any update; short ones cost little to add again. Outputs
    that are extrapolated move on from step to step, and so does their sum: none is kept.
    """
    flags: dict[tuple[int, int], int] = {}
    if plan.ahead is not None:
        return flags
    kept: tuple[int, int] | None = None
    for k, step in enumerate(plan.steps):
        for i, segment in enumerate(step):
            run = segment.start, segment.stop
            if segment.memo and run == kept:
                flags[k, i] = 4
            elif segment.keep and 2 * (run[1] - run[0]) > len(plan.blocks):
                flags[k, i], kept = 2, run
    return flags


def pack_plan(plan: Plan, solver: Solver, layers: int, keep: Pointers) -> dict[str, int | None]:
    """`PLAN` of structs.py."""
    return {
        "plan": keep(torch.from_numpy(plan_table(plan, solver, layers)), torch.int32),
        "ahead": None if plan.ahead is None else keep(torch.from_numpy(plan.ahead)),
    }


def make_room(params: Params, stores_cross: bool, extrapolates: bool, keep: Pointers) -> dict[str, int | None]:
    """`EXCHANGE` of structs.py: memory that thread blocks exchange results in."""
    layers, width, heads, observed, groups = params.layers, params.width, params.heads, params.observed, params.groups

    def quads(*shape: int) -> int:
        return keep.room(*shape, 4)

    shared, own = (2 * layers, groups, width), (params.blocks, layers, groups, width)
    folded = layers, observed, heads, width
    return {
        "stored": quads(*shared),
        "slopes": quads(*shared) if extrapolates else None,
        "cross": quads(*own) if stores_cross else None,
        "cross_slopes": quads(*own) if stores_cross and extrapolates else None,
        "wide": quads(groups, 4 * width),
        "token": quads(groups, width),
        "projected": quads(groups, layers * 2 * width),
        "key": keep.room(*folded),
        "key_bias": keep.room(*folded[:-1]),
        "value": keep.room(*folded),
        "barrier": keep.room(1, dtype=torch.int32),
    }
