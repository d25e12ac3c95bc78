"""Condition tokens of one observation as the cross-attentions of the planned loop read them: folded (see `bac.folding`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from bac.folding import Folded, observation_tokens

if TYPE_CHECKING:
    from bac.runtime.planned import PlannedSampler


class Memory:
    """Folded condition tokens of one observation; `at(step, layer)` gives key [B, H S, D], bias [B, T, H S], value."""

    def __init__(self, sampler: PlannedSampler, batch: int, tokens: int):
        self.sampler, self.batch, self.tokens = sampler, batch, tokens
        self.heads = sampler.model.n_head

    def mask(self, memory_tokens: int) -> Tensor:
        """Additive mask [T, 1, S], zeros where the model has none."""
        _, memory_mask = self.sampler.model.masks(self.tokens, memory_tokens)
        if memory_mask is None:
            return self.sampler.model.pos_emb.new_zeros(self.tokens, 1, memory_tokens)
        return memory_mask[:, None]


class SeparableMemory(Memory):
    """Condition tokens encoded one by one: the time token's part is copied in per step, the rest is fixed."""

    def __init__(self, sampler: PlannedSampler, cond: Tensor | None, batch: int, tokens: int):
        super().__init__(sampler, batch, tokens)
        model = sampler.model
        n_obs = cond.shape[1] if model.obs_as_cond else 0
        n_layers, memory_tokens = len(model.trunk.layers), 1 + n_obs
        empty = model.pos_emb.new_empty
        shape = (n_layers, batch, self.heads, memory_tokens, model.n_emb)
        self.key, self.value = empty(shape), empty(shape)
        self.mask_rows = self.mask(memory_tokens)
        self.bias = empty(n_layers, batch, tokens, self.heads, memory_tokens)
        if n_obs:
            folded = sampler.folding(observation_tokens(model, cond))
            self.key[:, :, :, 1:], self.value[:, :, :, 1:] = folded.key, folded.value
            self.bias[..., 1:] = folded.bias[:, :, None] + self.mask_rows[:, :, 1:]

    def at(self, step: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        time: Folded = self.sampler.time[layer, step]
        self.key[layer, :, :, :1] = time.key
        self.value[layer, :, :, :1] = time.value
        self.bias[layer, :, :, :, :1] = time.bias + self.mask_rows[:, :, :1]
        return self.key[layer].flatten(1, 2), self.bias[layer].flatten(-2), self.value[layer].flatten(1, 2)


class MixedMemory(Memory):
    """Condition tokens that attend to each other (`n_cond_layers > 0`): the memory depends on step and observation together,
    but still not on the trajectory. All steps that need it are encoded in one batch."""

    def __init__(self, sampler: PlannedSampler, cond: Tensor | None, batch: int, tokens: int):
        super().__init__(sampler, batch, tokens)
        time = sampler.time.repeat_interleave(batch, dim=0)  # [N B, 1, D]
        observations = cond.repeat(len(sampler.time), 1, 1) if sampler.model.obs_as_cond else None
        memory = sampler.model.encode_condition(time, observations)
        self.memory = memory.unflatten(0, (len(sampler.time), batch))  # [N, B, S, D]
        self.mask_rows = self.mask(memory.shape[1])

    def at(self, step: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        folded = self.sampler.folding.layer(layer)(self.memory[self.sampler.memory_position[step]])[0]
        bias = folded.bias[:, None] + self.mask_rows
        return folded.key.flatten(1, 2), bias.flatten(-2), folded.value.flatten(1, 2)
