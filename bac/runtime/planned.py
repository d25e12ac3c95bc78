"""The `planned` runtime: eager PyTorch that computes only what depends on the noisy trajectory.

Same actions as `reference` to floating-point rounding. What is hoisted out of the loop: time tokens and their folded
keys and values for all K steps (once per model), observation tokens and theirs (once per observation), the scheduler's
coefficients (once), and sums of reused residuals (once per run of steps in which they do not change).
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from bac.blocks import parse
from bac.denoiser import layer_of, model_blocks
from bac.folding import Folded, Folding, time_tokens
from bac.plan import Plan, Segment
from bac.runtime.memory import Memory, MixedMemory, SeparableMemory
from bac.runtime.snapshot import ModelSnapshot, SamplerSnapshot, check_modules
from bac.schedule import Schedule
from bac.solver import solver_from_scheduler
from diffusion_policy.model.diffusion.layers import MultiheadAttention, TransformerLayer
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, Generators, draw_noise

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class PlannedSampler:
    """Denoises with a `Plan`. Holds no per-call state: calls from several threads and of any batch size may interleave.

    Calls from several threads are bit-equal to calls one after the other where every thread computes with one torch thread.
    """

    name = "planned"

    @torch.no_grad()
    def __init__(self, base: DiffusionSampler, schedule: Schedule | None = None, precision: str = "fp32"):
        self.base, self.model = base, base.model
        model = self.model
        check_modules(model, self.name)
        self.solver = solver_from_scheduler(base.scheduler, base.num_inference_steps, base.step_kwargs)
        blocks = model_blocks(model)
        if model.input_dim != model.output_dim:
            raise ValueError(
                f"a denoiser keeps the trajectory's width, this model maps {model.input_dim} to {model.output_dim}"
            )
        schedule = Schedule.full(blocks, self.solver.steps) if schedule is None else schedule
        schedule.check_fits(blocks, self.solver.steps)
        self.schedule, self.plan = schedule, Plan.of(schedule)
        self.kinds = [parse(name).kind for name in blocks]
        self.layers = [layer_of(model, name) for name in blocks]
        self.precision, self.dtype = precision, _precision(precision, model.pos_emb.device)
        self.bytes_per_weight = self.dtype.itemsize  # as read by the blocks of the loop
        self.weights = {} if self.dtype is torch.float32 else self._low_precision_weights()
        self.device = model.pos_emb.device
        self.timesteps = torch.from_numpy(self.solver.timesteps).to(self.device)
        self.coefficients = self.solver.table.tolist()
        # steps at which some cross-attention computes -> their rank
        cross = [kind == "ca" for kind in self.kinds]
        self.memory_position = {
            int(step): i for i, step in enumerate(schedule.updates[:, cross].any(axis=1).nonzero()[0])
        }
        self.folding = (
            None if model.encoder_only else Folding.of([layer.multihead_attn for layer in model.trunk.layers])
        )
        self.time = self._hoist_time()
        self.chunks = 0
        self.snapshots = ModelSnapshot(model), SamplerSnapshot(base)

    def __deepcopy__(self, memo: dict) -> PlannedSampler:
        """The copy of a policy gets a sampler prepared for the copied weights."""
        return type(self)(copy.deepcopy(self.base, memo), *self._options())

    def _options(self) -> tuple:
        return self.schedule, self.precision

    # ---- what is computed once per model ----
    def _low_precision_weights(self) -> dict[int, Tensor]:
        cast = {}
        for layer in set(self.layers):
            for module in (layer.self_attn.out_proj, layer.linear1, layer.linear2):
                for parameter in (module.weight, module.bias):
                    cast[id(parameter)] = parameter.detach().to(self.dtype)
            for parameter in (layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias):
                cast[id(parameter)] = parameter.detach().to(self.dtype)
        return cast

    def _hoist_time(self) -> Folded | Tensor:
        """Folded time tokens (key [L, K, H, 1, D] ...). Where they mix with other tokens, raw ones: of all steps
        [K, 1, D] in the encoder-only form, of the N steps with a cross-attention [N, 1, D] for `n_cond_layers > 0`."""
        model = self.model
        if model.encoder_only:
            return model.embed_time(self.timesteps, len(self.timesteps), self.device)
        if model.n_cond_layers > 0:
            needed = list(self.memory_position)
            return model.embed_time(self.timesteps[needed], len(needed), self.device)
        return self.folding(time_tokens(model, self.timesteps))

    # ---- what is computed once per observation ----
    def hoist_observation(self, cond: Tensor | None, batch: int, tokens: int | None = None) -> Memory | None:
        """What the cross-attentions of `tokens` (all, if None) trajectory tokens need that only the observation
        [B, To, Do] decides."""
        if self.model.encoder_only:
            return None
        tokens = self.model.horizon if tokens is None else tokens
        if self.model.n_cond_layers > 0:
            return MixedMemory(self, cond, batch, tokens)
        return SeparableMemory(self, cond, batch, tokens)

    # ---- blocks ----
    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if self.weights:
            weight, bias = self.weights[id(weight)], self.weights[id(bias)]
        return F.linear(x, weight, bias)

    def _norm(self, x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
        n = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return n.to(self.dtype) if self.weights else n

    def _self_attention(self, x: Tensor, layer: TransformerLayer, mask: Tensor | None) -> Tensor:
        attention: MultiheadAttention = layer.self_attn
        qkv = self._linear(self._norm(x, layer.norm1), attention.in_proj_weight, attention.in_proj_bias)
        q, k, v = qkv.view(*x.shape[:2], 3, attention.n_head, -1).permute(2, 0, 3, 1, 4)  # each [B, H, T, dh]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.to(q.dtype))
        return self._linear(y.transpose(1, 2).reshape(x.shape), attention.out_proj.weight, attention.out_proj.bias)

    def _feed_forward(self, x: Tensor, layer: TransformerLayer) -> Tensor:
        hidden = F.gelu(self._linear(self._norm(x, layer.ffn_norm), layer.linear1.weight, layer.linear1.bias))
        return self._linear(hidden, layer.linear2.weight, layer.linear2.bias)

    def _cross_attention(self, x: Tensor, layer: TransformerLayer, index: int, step: int, memory: Memory) -> Tensor:
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
        if kind == "ffn":
            return self._feed_forward(x, layer)
        return self._cross_attention(x, layer, block // 3, step, memory)

    def denoise(
        self, step: int, trajectory: Tensor, memory: Memory | None, mask: Tensor | None, cache: _Cache
    ) -> Tensor:
        """Model output at one step."""
        time_token = self.time[step : step + 1] if self.model.encoder_only else None
        if time_token is not None:
            time_token = time_token.expand(trajectory.shape[0], -1, -1)
        x = self.model.embed_trajectory(trajectory, time_token)
        for segment in self.plan.steps[step]:
            if segment.stop > segment.start:
                x = x + cache.total(segment)
            if segment.block is not None:
                out = self.compute(segment.block, x, step, memory, mask)
                if segment.store:
                    cache.values[segment.block] = out
                x = x + out
        return self.model.read_out(x)

    # ---- the loop ----
    def loop(
        self,
        trajectory: Tensor,
        noise: list[Tensor | None] | Tensor,
        condition: Tensor,
        given: Tensor | None,
        memory: Memory | None,
    ) -> Tensor:
        """All K steps; `noise[k]` [B, T, D] is read where the solver draws. No synchronisation, fixed shapes."""
        tokens = trajectory.shape[1] + (1 if self.model.encoder_only else 0)
        mask, _ = self.model.masks(tokens)
        cache = _Cache(self, trajectory, tokens) if self.plan.caches else _Cache(self, None, tokens)
        last = None
        for step in range(self.solver.steps):
            if given is not None:
                trajectory = torch.where(given, condition, trajectory)
            output = self.denoise(step, trajectory, memory, mask, cache)
            trajectory, last = self.solve(step, trajectory, output, last, noise[step])
        return trajectory if given is None else torch.where(given, condition, trajectory)

    def solve(
        self, step: int, trajectory: Tensor, output: Tensor, last: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The scheduler's update from the table (see `bac.solver`): next trajectory and the estimate of the clean one."""
        x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma = self.coefficients[step]
        clip = self.solver.clip
        x0 = output * m_gain if x_gain == 0 else torch.add(trajectory * x_gain, output, alpha=m_gain)
        if clip != float("inf"):
            x0 = x0.clamp_(-clip, clip)
        trajectory = torch.add(trajectory * to_x, x0, alpha=to_x0)
        if to_last and last is not None:
            trajectory = trajectory.add_(last, alpha=to_last)
        if to_m:
            trajectory = trajectory.add_(output, alpha=to_m)
        if self.solver.draws[step] and sigma:
            trajectory = trajectory.add_(noise, alpha=sigma)
        return trajectory, x0

    def draw(self, condition: Tensor, generator: Generators) -> tuple[Tensor, list[Tensor | None]]:
        """Initial noise and each step's noise, drawn in the order in which the reference draws them."""
        initial = draw_noise(condition.shape, condition, generator) * self.solver.init_sigma
        return initial, [
            draw_noise(condition.shape, condition, generator) if draws else None for draws in self.solver.draws
        ]

    def check(self, condition: Tensor, given: Tensor | None, cond: Tensor | None) -> None:
        """Refuses inputs that do not fit, and weights or a device that changed under the hoisted tables, which are snapshots."""
        model = self.model
        if condition.device != self.device:
            raise RuntimeError(
                f"the policy was accelerated on {self.device} but is now on {condition.device}: call accelerate() again"
            )
        for snapshot in self.snapshots:
            snapshot.check()
        if model.training and model.drop.p + model.trunk.layers[0].dropout.p > 0:
            raise RuntimeError("the policy is in training mode, where dropout is random: call policy.eval() first")
        if condition.ndim == 3 and condition.shape[0] == 0:
            raise ValueError("the batch is empty: give at least one sample")
        if condition.ndim != 3 or condition.shape[1] > model.horizon or condition.shape[2] != model.input_dim:
            raise ValueError(
                f"condition has shape {tuple(condition.shape)}, this model denoises [B, up to {model.horizon}, {model.input_dim}]"
            )
        if given is not None and given.shape != condition.shape:
            raise ValueError(
                f"given has shape {tuple(given.shape)}, it must be that of condition, {tuple(condition.shape)}"
            )
        if not model.obs_as_cond:
            return
        expected = f"[{condition.shape[0]}, up to {model.n_obs_steps}, {model.cond_dim}]"
        if cond is None:
            raise ValueError(f"this model is conditioned on observations: pass cond {expected}")
        if (
            cond.ndim != 3
            or cond.shape[::2] != (condition.shape[0], model.cond_dim)
            or cond.shape[1] > model.n_obs_steps
        ):
            raise ValueError(f"cond has shape {tuple(cond.shape)}, expected {expected}")

    @torch.no_grad()
    def __call__(
        self, condition: Tensor, given: Tensor | None, cond: Tensor | None, generator: Generators = None
    ) -> Tensor:
        """See `DiffusionSampler.__call__`: same arguments, same noise."""
        torch.get_num_threads()  # a new thread takes over torch.set_num_threads only once it asks, and rounds differently until then
        self.check(condition, given, cond)
        initial, noise = self.draw(condition, generator)
        memory = self.hoist_observation(cond, *condition.shape[:2])
        self.chunks += 1
        return self.loop(initial, noise, condition, given, memory)

    @property
    def block_updates(self) -> Counter[str]:
        """How often each block has computed, over all chunks."""
        return Counter({name: count * self.chunks for name, count in self.schedule.updates_per_block.items()})


class _Cache:
    """Stored branch outputs of one chunk, [blocks, B, T, D] in one buffer so that a run of them is summed in one call."""

    def __init__(self, sampler: PlannedSampler, trajectory: Tensor | None, tokens: int):
        if trajectory is not None:
            width = sampler.model.n_emb
            self.values = trajectory.new_empty(len(sampler.kinds), trajectory.shape[0], tokens, width)
        self.sums: dict[tuple[int, int], Tensor] = {}

    def total(self, segment: Segment) -> Tensor:
        run = (segment.start, segment.stop)
        if segment.memo:
            return self.sums[run] if segment.keep else self.sums.pop(run)
        if segment.stop - segment.start == 1:
            return self.values[segment.start]
        total = self.values[segment.start : segment.stop].sum(0)
        if segment.keep:
            self.sums[run] = total
        return total


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}: use {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("precision=fp16 needs a GPU: on a CPU use fp32 or bf16")
    return PRECISIONS[name]
