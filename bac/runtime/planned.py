"""The `planned` runtime: eager PyTorch that computes only what depends on the noisy trajectory.

Same actions as `reference` to floating-point rounding. What is hoisted out of the loop: time tokens and their folded
keys and values for all K steps (once per model), observation tokens and theirs (once per observation), the scheduler's
coefficients (once), and sums of reused residuals (once per run of steps in which they do not change).
"""
from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from bac.blocks import parse
from bac.denoiser import layer_of, model_blocks
from bac.folding import Folded, fold, observation_tokens, time_tokens
from bac.plan import Plan, Segment
from bac.schedule import Schedule
from bac.solver import solver_from_scheduler
from diffusion_policy.model.diffusion.layers import MultiheadAttention, TransformerLayer
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, Generators, draw_noise

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class PlannedSampler:
    """Denoises with a `Plan`. Holds no per-call state: calls from several threads and of any batch size may interleave."""

    name = "planned"

    @torch.no_grad()
    def __init__(self, base: DiffusionSampler, schedule: Schedule | None = None, precision: str = "fp32"):
        self.base, self.model = base, base.model
        model = self.model
        self.solver = solver_from_scheduler(base.scheduler, base.num_inference_steps, base.step_kwargs)
        blocks = model_blocks(model)
        schedule = Schedule.full(blocks, self.solver.steps) if schedule is None else schedule
        schedule.check_fits(blocks, self.solver.steps)
        self.schedule, self.plan = schedule, Plan.of(schedule)
        self.kinds = [parse(name).kind for name in blocks]
        self.layers = [layer_of(model, name) for name in blocks]
        self.precision, self.dtype = precision, _precision(precision, model.pos_emb.device)
        self.weights = {} if self.dtype is torch.float32 else self._low_precision_weights()
        self.device = model.pos_emb.device
        self.timesteps = torch.from_numpy(self.solver.timesteps).to(self.device)
        self.coefficients = self.solver.table.tolist()
        self.time = self._hoist_time()
        self.chunks = 0
        self.weight_versions = self._versions()

    # ---- what is computed once per model ----
    def _versions(self) -> int:
        return sum(parameter._version for parameter in self.model.parameters())

    def _low_precision_weights(self) -> dict[int, Tensor]:
        cast = {}
        for layer in set(self.layers):
            for module in (layer.self_attn.out_proj, layer.linear1, layer.linear2):
                for parameter in (module.weight, module.bias):
                    cast[id(parameter)] = parameter.detach().to(self.dtype)
            for parameter in (layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias):
                cast[id(parameter)] = parameter.detach().to(self.dtype)
        return cast

    def _hoist_time(self) -> list[Folded] | Tensor | None:
        """Folded time tokens per layer (key [K, H, 1, D] ...); raw time tokens [K, 1, D] where they mix with other tokens."""
        model = self.model
        if model.encoder_only or model.n_cond_layers > 0:
            return model.embed_time(self.timesteps, len(self.timesteps), self.device)
        tokens = time_tokens(model, self.timesteps)
        return [fold(layer.multihead_attn, tokens) for layer in model.trunk.layers]

    # ---- what is computed once per observation ----
    def hoist_observation(self, cond: Tensor | None, batch: int) -> _Memory | None:
        """Everything the cross-attentions need that depends on the observation [B, To, Do] alone."""
        model = self.model
        if model.encoder_only:
            return None
        if model.obs_as_cond and cond is None:
            raise ValueError("this model is conditioned on observations: pass cond [B, To, cond_dim]")
        if model.n_cond_layers > 0:
            return _MixedMemory(self, cond, batch)
        return _SeparableMemory(self, cond, batch)

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

    def _cross_attention(self, x: Tensor, layer: TransformerLayer, index: int, step: int, memory: _Memory) -> Tensor:
        norm = layer.norm2
        n = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        key, bias, value = memory.at(step, index)  # [B, H S, D], [B, T, H S], [B, H S, D]
        heads = layer.multihead_attn.n_head
        score = torch.baddbmm(bias, n, key.transpose(1, 2)).unflatten(-1, (heads, -1))  # [B, T, H, S]
        out_bias = layer.multihead_attn.out_proj.bias
        return torch.baddbmm(out_bias.expand(1, 1, -1), score.softmax(-1).flatten(-2), value)

    def compute(self, block: int, x: Tensor, step: int, memory: _Memory | None, mask: Tensor | None) -> Tensor:
        """Branch output [B, T, D] of one block."""
        layer, kind = self.layers[block], self.kinds[block]
        if kind == "sa":
            return self._self_attention(x, layer, mask)
        if kind == "ffn":
            return self._feed_forward(x, layer)
        return self._cross_attention(x, layer, block // 3, step, memory)

    def denoise(self, step: int, trajectory: Tensor, memory: _Memory | None, mask: Tensor | None, cache: _Cache) -> Tensor:
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
        self, trajectory: Tensor, noise: list[Tensor | None] | Tensor, condition: Tensor, given: Tensor | None,
        memory: _Memory | None,
    ) -> Tensor:
        """All K steps; `noise[k]` [B, T, D] is read where the solver draws. No synchronisation, fixed shapes."""
        tokens = trajectory.shape[1] + (1 if self.model.encoder_only else 0)
        mask, _ = self.model.masks(tokens)
        cache = _Cache(self, trajectory, tokens) if self.plan.caches else _Cache(self, None, tokens)
        clip, last = self.solver.clip, None
        for step, (x_gain, m_gain, to_x, to_x0, to_last, to_m, sigma) in enumerate(self.coefficients):
            if given is not None:
                trajectory = torch.where(given, condition, trajectory)
            output = self.denoise(step, trajectory, memory, mask, cache)
            x0 = output * m_gain if x_gain == 0 else torch.add(trajectory * x_gain, output, alpha=m_gain)
            if clip != float("inf"):
                x0 = x0.clamp_(-clip, clip)
            trajectory = torch.add(trajectory * to_x, x0, alpha=to_x0)
            if to_last and last is not None:
                trajectory = trajectory.add_(last, alpha=to_last)
            if to_m:
                trajectory = trajectory.add_(output, alpha=to_m)
            if self.solver.draws[step] and sigma:
                trajectory = trajectory.add_(noise[step], alpha=sigma)
            last = x0
        return trajectory if given is None else torch.where(given, condition, trajectory)

    def draw(self, condition: Tensor, generator: Generators) -> tuple[Tensor, list[Tensor | None]]:
        """Initial noise and each step's noise, drawn in the order in which the reference draws them."""
        initial = draw_noise(condition.shape, condition, generator) * self.solver.init_sigma
        return initial, [draw_noise(condition.shape, condition, generator) if draws else None for draws in self.solver.draws]

    def check_current(self, condition: Tensor) -> None:
        """The hoisted tables are snapshots: refuse to run on weights or a device that changed under them."""
        if self._versions() != self.weight_versions:
            raise RuntimeError("the policy's weights changed after it was accelerated: leave accelerate(), then enter it again")
        if condition.device != self.device:
            raise RuntimeError(f"the policy was accelerated on {self.device} but is now on {condition.device}: accelerate it again")

    @torch.no_grad()
    def __call__(
        self, condition: Tensor, given: Tensor | None, cond: Tensor | None, generator: Generators = None
    ) -> Tensor:
        """See `DiffusionSampler.__call__`: same arguments, same noise."""
        self.check_current(condition)
        initial, noise = self.draw(condition, generator)
        memory = self.hoist_observation(cond, condition.shape[0])
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
            return self.sums[run]
        if segment.stop - segment.start == 1:
            return self.values[segment.start]
        total = self.values[segment.start : segment.stop].sum(0)
        if segment.keep:
            self.sums[run] = total
        return total


class _Memory:
    """Folded condition tokens of one observation; `at(step, layer)` gives key [B, H S, D], bias [B, T, H S], value."""

    def __init__(self, sampler: PlannedSampler, batch: int):
        self.sampler, self.batch = sampler, batch
        self.heads = sampler.model.n_head

    def mask(self, tokens: int) -> Tensor:
        """Additive mask [T, 1, S], zeros where the model has none."""
        memory_mask = self.sampler.model.memory_mask
        trajectory_tokens = self.sampler.model.T
        if memory_mask is None:
            return self.sampler.model.pos_emb.new_zeros(trajectory_tokens, 1, tokens)
        return memory_mask[:trajectory_tokens, None, :tokens]


class _SeparableMemory(_Memory):
    """Condition tokens encoded one by one: the time token's part is copied in per step, the rest is fixed."""

    def __init__(self, sampler: PlannedSampler, cond: Tensor | None, batch: int):
        super().__init__(sampler, batch)
        model = sampler.model
        n_obs = cond.shape[1] if model.obs_as_cond else 0
        layers, tokens = model.trunk.layers, 1 + n_obs
        empty = model.pos_emb.new_empty
        shape = (len(layers), batch, self.heads, tokens, model.n_emb)
        self.key, self.value = empty(shape), empty(shape)
        self.mask_rows = self.mask(tokens)
        self.bias = empty(len(layers), batch, model.T, self.heads, tokens)
        if n_obs:
            encoded = observation_tokens(model, cond)
            for index, layer in enumerate(layers):
                folded = fold(layer.multihead_attn, encoded)
                self.key[index, :, :, 1:], self.value[index, :, :, 1:] = folded.key, folded.value
                self.bias[index, :, :, :, 1:] = folded.bias[:, None] + self.mask_rows[:, :, 1:]

    def at(self, step: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        time: Folded = self.sampler.time[layer]
        self.key[layer, :, :, :1] = time.key[step]
        self.value[layer, :, :, :1] = time.value[step]
        self.bias[layer, :, :, :, :1] = time.bias[step] + self.mask_rows[:, :, :1]
        return self.key[layer].flatten(1, 2), self.bias[layer].flatten(-2), self.value[layer].flatten(1, 2)


class _MixedMemory(_Memory):
    """Condition tokens that attend to each other (`n_cond_layers > 0`): the memory depends on step and observation together,
    but still not on the trajectory. All steps that need it are encoded in one batch."""

    def __init__(self, sampler: PlannedSampler, cond: Tensor | None, batch: int):
        super().__init__(sampler, batch)
        model = sampler.model
        is_cross = [kind == "ca" for kind in sampler.kinds]
        needed = sampler.schedule.updates[:, is_cross].any(axis=1).nonzero()[0]
        self.position = {int(step): index for index, step in enumerate(needed)}
        time = sampler.time[torch.as_tensor(needed, device=sampler.device)]  # [N, 1, D]
        time = time.repeat_interleave(batch, dim=0)
        observations = None if cond is None or not model.obs_as_cond else cond.repeat(len(needed), 1, 1)
        memory = model.encode_condition(time, observations)
        self.memory = memory.unflatten(0, (len(needed), batch))  # [N, B, S, D]
        self.mask_rows = self.mask(memory.shape[1])

    def at(self, step: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        folded = fold(self.sampler.model.trunk.layers[layer].multihead_attn, self.memory[self.position[step]])
        bias = folded.bias[:, None] + self.mask_rows
        return folded.key.flatten(1, 2), bias.flatten(-2), folded.value.flatten(1, 2)


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}: use {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise ValueError("precision=fp16 needs a GPU: on a CPU use fp32 or bf16")
    return PRECISIONS[name]
