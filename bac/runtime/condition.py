"""Condition tokens as the cross-attentions of the hoisting runtimes read them: folded (see `bac.folding`).

`ConditionTables` holds what only the model decides, for all K steps; its `memory` adds what an observation decides.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bac.blocks import parse
from bac.denoiser import Denoiser, model_blocks
from bac.folding import Folded, Folding, observation_tokens, time_tokens
from bac.schedule import Schedule


class Memory(Protocol):
    """Folded condition tokens of one batch of observations."""

    def at(self, step: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Key [B, H S, D], bias [B, T, H S] and value [B, H S, D] of a layer's cross-attention at one step."""
        ...


class ConditionTables:
    """Folded weights and time tokens of a model under a schedule; nothing in it depends on an observation.

    Attributes:
        folding: weights of all cross-attentions side by side; None in the encoder-only form, which has none.
        time: folded time tokens (key [L, K, H, 1, D], ...) where condition tokens are encoded one by one, else None.
        raw_time: raw time tokens where they mix with other tokens: of all steps [K, 1, D] in the encoder-only form, of
            the N steps with a cross-attention [N, 1, D] for `n_cond_layers > 0`; else None.
        position: step -> its rank among the steps at which some cross-attention computes.
    """

    def __init__(self, model: Denoiser, schedule: Schedule, timesteps: Tensor):
        self.model = model
        cross = [parse(name).kind == "ca" for name in model_blocks(model)]
        with_cross = np.flatnonzero(schedule.updates[:, cross].any(axis=1))
        self.position = {int(step): rank for rank, step in enumerate(with_cross)}
        self.folding: Folding | None = None
        self.time: Folded | None = None
        self.raw_time: Tensor | None = None
        if model.encoder_only:
            self.raw_time = model.embed_time(timesteps, len(timesteps), timesteps.device)
            return
        self.folding = Folding.of([layer.multihead_attn for layer in model.trunk.layers])
        if model.n_cond_layers > 0:
            needed = list(self.position)
            self.raw_time = model.embed_time(timesteps[needed], len(needed), timesteps.device)
        else:
            self.time = self.folding(time_tokens(model, timesteps))

    def memory(self, observation: Tensor | None, batch: int, tokens: int) -> Memory | None:
        """What only the observation [B, To, Do] decides, for the cross-attentions of `tokens` trajectory tokens."""
        if self.folding is None:
            return None
        if self.time is not None:
            return SeparableMemory(self.model, self.folding, self.time, observation, batch, tokens)
        return MixedMemory(self.model, self.folding, self.mixed_tokens(observation, batch), self.position, tokens)

    def mixed_tokens(self, observation: Tensor | None, batch: int) -> Tensor:
        """Encoded condition tokens [N, B, S, D] of all steps that need them, for `n_cond_layers > 0`."""
        if self.raw_time is None:
            raise ValueError("the condition tokens of this model do not mix")
        steps = len(self.raw_time)
        time = self.raw_time.repeat_interleave(batch, dim=0)  # [N B, 1, D]
        repeated = observation.repeat(steps, 1, 1) if observation is not None and self.model.obs_as_cond else None
        return self.model.encode_condition(time, repeated).unflatten(0, (steps, batch))


class SeparableMemory:
    """Condition tokens encoded one by one: the time token's part is copied in per step, the rest is fixed.

    Attributes:
        key, value: [L, B, H, S, D], of all layers; bias: [L, B, T, H, S].
        time: folded time tokens of all layers and steps; mask_rows: additive mask [T, 1, S].
    """

    def __init__(
        self, model: Denoiser, folding: Folding, time: Folded, observation: Tensor | None, batch: int, tokens: int
    ):
        self.time = time
        self.step: int | None = None  # whose time token is in the tables
        observed = observation if model.obs_as_cond else None
        n_obs = 0 if observed is None else observed.shape[1]
        n_layers, memory_tokens = len(model.trunk.layers), 1 + n_obs
        empty = model.pos_emb.new_empty
        shape = (n_layers, batch, model.n_head, memory_tokens, model.n_emb)
        self.key, self.value = empty(shape), empty(shape)
        self.mask_rows = _mask_rows(model, tokens, memory_tokens)
        self.bias = empty(n_layers, batch, tokens, model.n_head, memory_tokens)
        if observed is not None:
            folded = folding(observation_tokens(model, observed))
            self.key[:, :, :, 1:], self.value[:, :, :, 1:] = folded.key, folded.value
            self.bias[..., 1:] = folded.bias[:, :, None] + self.mask_rows[:, :, 1:]

    def at(self, step: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        if step != self.step:  # of all layers at once: a launch costs more than the numbers that no layer reads
            time = self.time[:, step]  # [L, H, 1, D], ...
            self.key[..., :1, :] = time.key[:, None]
            self.value[..., :1, :] = time.value[:, None]
            self.bias[..., :1] = time.bias[:, None, None] + self.mask_rows[..., :1]
            self.step = step
        return self.key[layer].flatten(1, 2), self.bias[layer].flatten(-2), self.value[layer].flatten(1, 2)


class MixedMemory:
    """Condition tokens that attend to each other (`n_cond_layers > 0`).

    They depend on step and observation together, but not on the trajectory: all steps are encoded in one batch.
    """

    def __init__(self, model: Denoiser, folding: Folding, encoded: Tensor, position: dict[int, int], tokens: int):
        self.folding, self.encoded, self.position = folding, encoded, position
        self.mask_rows = _mask_rows(model, tokens, encoded.shape[2])

    def at(self, step: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        folded = self.folding.layer(layer)(self.encoded[self.position[step]])[0]
        bias = folded.bias[:, None] + self.mask_rows
        return folded.key.flatten(1, 2), bias.flatten(-2), folded.value.flatten(1, 2)

    def all_layers(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `at` gives for each layer, to rounding: [L, B, H S, D], [L, B, T, H S] and [L, B, H S, D]."""
        folded = self.folding(self.encoded[self.position[step]])
        bias = folded.bias[:, :, None] + self.mask_rows
        return folded.key.flatten(2, 3), bias.flatten(-2), folded.value.flatten(2, 3)


def _mask_rows(model: Denoiser, tokens: int, memory_tokens: int) -> Tensor:
    """Additive mask [T, 1, S], zeros where the model has none."""
    _, memory_mask = model.masks(tokens, memory_tokens)
    if memory_mask is None:
        return torch.zeros(tokens, 1, memory_tokens, dtype=model.pos_emb.dtype, device=model.pos_emb.device)
    return memory_mask[:, None]
