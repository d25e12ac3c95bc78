"""The denoising loop in eager PyTorch over hoisted tables: `planned` runs it, the CUDA graph captures it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bac.blocks import parse
from bac.denoiser import Attention, Layer, layer_of
from bac.loop import SamplerInputs
from bac.plan import Segment
from bac.runtime.condition import Memory
from bac.runtime.contract import dtype_of
from bac.runtime.hoisted import Hoisted


class EagerLoop:
    """Carries out a plan. Holds no per-call state.

    Args:
        precision: of the blocks' matrix products, but for the cross-attentions, which are folded in fp32.
    """

    @torch.no_grad()
    def __init__(self, hoisted: Hoisted, precision: str = "fp32"):
        self.hoisted, self.model = hoisted, hoisted.model
        blocks = hoisted.schedule.blocks
        self.kinds = [parse(name).kind for name in blocks]
        self.layers = [layer_of(self.model, name) for name in blocks]
        self.dtype = dtype_of(precision, hoisted.device)
        self.weights = {} if self.dtype is torch.float32 else self._low_precision_weights()
        self.coefficients: list[list[float]] = hoisted.solver.table.tolist()
        self.ahead: Tensor | None = None  # [K, blocks, 1, 1, 1], see `Plan.ahead`
        if hoisted.plan.ahead is not None:
            steps = torch.from_numpy(hoisted.plan.ahead).to(self.model.pos_emb)
            self.ahead = steps[:, :, None, None, None]

    def _low_precision_weights(self) -> dict[int, Tensor]:
        cast = {}
        for layer in set(self.layers):
            attention = layer.self_attn
            linears = (attention.out_proj, layer.linear1, layer.linear2)
            parameters = [p for module in linears for p in (module.weight, module.bias)]
            for parameter in (*parameters, attention.in_proj_weight, attention.in_proj_bias):
                cast[id(parameter)] = parameter.detach().to(self.dtype)
        return cast

    # ---- blocks ----
    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self.weights:
            weight, bias = self.weights[id(weight)], self.weights[id(bias)]
        return F.linear(x, weight, bias)

    def _norm(self, x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        n = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return n.to(self.dtype) if self.weights else n

    def _self_attention(self, x: Tensor, layer: Layer, mask: Tensor | None) -> Tensor:
        attention: Attention = layer.self_attn
        qkv = self._linear(self._norm(x, layer.norm1), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.view(*x.shape[:2], 3, attention.n_head, -1).permute(2, 0, 3, 1, 4)  # each [B, H, T, dh]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.to(q.dtype))
        return self._linear(y.transpose(1, 2).reshape(x.shape), attention.out_proj.weight, attention.out_proj.bias)

    def _feed_forward(self, x: Tensor, layer: Layer) -> Tensor:
        hidden = F.gelu(self._linear(self._norm(x, layer.ffn_norm), layer.linear1.weight, layer.linear1.bias))
        return self._linear(hidden, layer.linear2.weight, layer.linear2.bias)

    def _cross_attention(self, x: Tensor, layer: Layer, index: int, step: int, memory: Memory) -> Tensor:
        norm = layer.norm2
        n = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        key, bias, value = memory.at(step, index)  # [B, H S, D], [B, T, H S], [B, H S, D]
        heads = layer.multihead_attn.n_head
        score = torch.baddbmm(bias, n, key.transpose(1, 2)).unflatten(-1, (heads, -1))  # [B, T, H, S]
        out_bias = layer.multihead_attn.out_proj.bias
        return torch.baddbmm(out_bias.expand(1, 1, -1), score.softmax(-1).flatten(-2), value)

    def compute(self, block: int, x: Tensor, step: int, memory: Memory | None, mask: Tensor | None) -> Tensor:
        """Branch output [B, T, D] of one block."""
        layer, kind = self.layers[block], self.kinds[block]
        if kind == "sa":
            return self._self_attention(x, layer, mask)
        if kind == "ffn" or memory is None:
            return self._feed_forward(x, layer)
        return self._cross_attention(x, layer, block // 3, step, memory)

    def denoise(
        self, step: int, trajectory: Tensor, memory: Memory | None, mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """Model output at one step."""
        raw_time, time_token = self.hoisted.condition.raw_time, None
        if self.model.encoder_only and raw_time is not None:
            time_token = raw_time[step : step + 1].expand(trajectory.shape[0], -1, -1)
        x = self.model.embed_trajectory(trajectory, time_token)
        for segment in self.hoisted.plan.steps[step]:
            if segment.stop > segment.start:
                x = x + cache.total(segment, step)
            if segment.block is not None:
                out = self.compute(segment.block, x, step, memory, mask)
                if segment.store:
                    cache.put(segment, out)
                x = x + out
        return self.model.read_out(x)

    # ---- the loop ----
    def run(
        self,
        trajectory: Tensor,
        noise: Sequence[Tensor | None] | Tensor,
        inputs: SamplerInputs,
        memory: Memory | None,
    ) -> Tensor:
        """All K steps from the initial noise; `noise[k]` [B, T, D] is read where the solver draws.

        No synchronisation with the device, fixed shapes. Where `inputs` are of fewer tokens than the noise, its first
        ones are taken.
        """
        denoised = inputs.known.shape[1]
        trajectory = trajectory[:, :denoised]
        tokens = trajectory.shape[1] + (1 if self.model.encoder_only else 0)
        mask, _ = self.model.masks(tokens)
        cache = Cache(self, trajectory, tokens)
        last = None
        for step in range(self.hoisted.solver.steps):
            trajectory = inputs.impose(trajectory)
            output = self.denoise(step, trajectory, memory, mask, cache)
            drawn = noise[step]
            drawn = None if drawn is None else drawn[:, :denoised]
            trajectory, last = self.solve(step, trajectory, output, last, drawn)
        return inputs.impose(trajectory)

    def solve(
        self, step: int, trajectory: Tensor, output: Tensor, last: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The scheduler's update from the table (see `bac.solver`): next trajectory, estimate of the clean one."""
        x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma = self.coefficients[step]
        clip = self.hoisted.solver.clip
        x0 = output * m_gain if x_gain == 0 else torch.add(trajectory * x_gain, output, alpha=m_gain)
        if clip != float("inf"):
            x0 = x0.clamp_(-clip, clip)
        trajectory = torch.add(trajectory * to_x, x0, alpha=to_x0)
        if to_last and last is not None:
            trajectory = trajectory.add_(last, alpha=to_last)
        if to_m:
            trajectory = trajectory.add_(output, alpha=to_m)
        if sigma and noise is not None and self.hoisted.solver.draws[step]:
            trajectory = trajectory.add_(noise, alpha=sigma)
        return trajectory, x0


class Cache:
    """Stored branch outputs of one chunk, [blocks, B, T, D] in one buffer: a run of them is summed in one call.

    Where outputs are extrapolated, a second such buffer holds their slopes per step.
    """

    def __init__(self, loop: EagerLoop, trajectory: Tensor, tokens: int):
        self.ahead = loop.ahead
        shape = len(loop.kinds), trajectory.shape[0], tokens, loop.model.n_emb
        if loop.hoisted.plan.caches:
            self.values = trajectory.new_empty(shape)
        if self.ahead is not None:
            self.slopes = trajectory.new_zeros(shape)  # those that are not known yet are read, times 0
        #: run -> its sum, the step of that, and the sum of the run's slopes
        self.sums: dict[tuple[int, int], tuple[Tensor, int, Tensor | None]] = {}

    def put(self, segment: Segment, out: Tensor) -> None:
        """Stores what a segment's block has computed."""
        if segment.gap:
            self.slopes[segment.block] = (out - self.values[segment.block]) / segment.gap
        self.values[segment.block] = out

    def total(self, segment: Segment, step: int) -> Tensor:
        """What the reused blocks of a segment add, [B, T, D]."""
        run = (segment.start, segment.stop)
        if segment.memo:
            total, since, slope = self.sums[run] if segment.keep else self.sums.pop(run)
            return total if slope is None else torch.add(total, slope, alpha=step - since)
        values, slope = self.values[slice(*run)], None
        if self.ahead is not None:
            slopes = self.slopes[slice(*run)]
            slope = slopes.sum(0) if segment.keep else None
            values = torch.addcmul(values, slopes, self.ahead[step, slice(*run)])
        total = values[0] if len(values) == 1 else values.sum(0)
        if segment.keep:
            self.sums[run] = total, step, slope
        return total
