"""The `compiled` runtime on a CPU: the whole denoising loop in one call of a native library (bac/native).

Same program as `planned`, with prepacked weights, fused epilogues (bias, GELU, residual, store) and no per-operation
overhead. With precision=bf16 the products of the blocks multiply bfloat16 numbers and sum in float32, with
precision=int8 they multiply bytes; all else is float32. Every row is computed in the same order whatever the rows
beside it: a sample's action does not depend on its batch, nor on whether tokens that it does not depend on are
denoised, bit for bit.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable
from ctypes import c_void_p
from typing import Any

import torch
from torch import Tensor

from bac.errors import Unavailable
from bac.folding import Folded
from bac.loop import DenoisingLoop, Generators, SamplerInputs
from bac.native import build, engine
from bac.native.levels import ROUNDED, check_format, choose_level
from bac.native.packing import is_half, pack, pack_folding
from bac.native.structs import WEIGHT_BYTES, Call, Keep, Layer, Matrix, Model, Segment, SolverRow, array, round_up
from bac.runtime.contract import TimedParts, check_precision, scheduled_updates
from bac.runtime.hoisted import Hoisted
from bac.schedule import Schedule
from bac.solver import COLUMNS


class CompiledCpuSampler:
    """Denoises in native code.

    Args:
        precision: fp32; bf16 where the processor multiplies it (AVX512-BF16); int8 where it multiplies bytes (VNNI):
            weights are rounded per output channel, and each token's activations to its own range, when it is there.
        threads: torch's number of threads unless given.

    Raises:
        Unavailable: the precision, level or model is not to be had here.
        NativeError: there is no native library (see `bac.native.build.library`).
    """

    name = "compiled"

    @torch.no_grad()
    def __init__(
        self,
        base: DenoisingLoop,
        schedule: Schedule | None = None,
        precision: str = "fp32",
        threads: int | None = None,
        tokens: int | None = None,
    ):
        check_precision(precision, torch.device("cpu"))
        if base.model.n_emb % 16:
            raise Unavailable(
                f"runtime=compiled needs n_emb divisible by 16, this model has {base.model.n_emb}: use runtime=planned"
            )
        if threads is not None:
            engine.check_threads(threads)
        started = time.perf_counter()
        self.library = build.library()
        self.level = choose_level(self.library)
        check_format(precision, self.level)
        self.precision = precision
        self.base, self.model, self.threads, self.tokens = base, base.model, threads, tokens
        self.hoisted = Hoisted(base, schedule, self.name, tokens)
        if self.hoisted.device.type != "cpu":
            raise Unavailable(f"the policy is on {self.hoisted.device}, not on the CPU")
        self.schedule = self.hoisted.schedule
        self.keep = Keep()
        self.slots, self.slot_steps = self._memory_slots()
        self.native_model = self._pack()
        self.chunks = 0
        self.prepare_seconds = time.perf_counter() - started

    def __deepcopy__(self, memo: dict) -> CompiledCpuSampler:
        """The copy of a policy gets a sampler prepared for the copied weights."""
        return CompiledCpuSampler(
            copy.deepcopy(self.base, memo), self.schedule, self.precision, self.threads, self.tokens
        )

    @property
    def block_updates(self) -> Counter[str]:
        return scheduled_updates(self.schedule, self.chunks)

    # ---- once per model ----
    def _memory_slots(self) -> tuple[Tensor | None, list[tuple[int, int]]]:
        """Slots of the condition tables, [layers, steps], and the (layer, step) of each slot, where tokens mix.

        Those (`n_cond_layers > 0`) have one per computed cross-attention. Others are the same at every step.
        """
        model = self.model
        if model.encoder_only or model.n_cond_layers == 0:
            return None, []
        n_layers = len(model.trunk.layers)
        slots = torch.full((n_layers, self.schedule.steps), -1, dtype=torch.int32)
        pairs = [
            (layer, step)
            for layer in range(n_layers)
            for step in self.schedule.updates[:, 3 * layer + 1].nonzero()[0].tolist()
        ]
        for slot, (layer, step) in enumerate(pairs):
            slots[layer, step] = slot
        return slots, pairs

    def _pack(self) -> Model:
        model, keep = self.model, self.keep

        def form(weight: Tensor) -> str:
            # Where half precision holds the weights it loses nothing, and reading half the bytes is faster.
            return "half" if "half" in self.level.formats and is_half(weight) else "float"

        def linear(weight: Tensor, bias: Tensor) -> Matrix:
            return pack(weight, bias, keep, ROUNDED.get(self.precision) or form(weight))

        condition, solver = self.hoisted.condition, self.hoisted.solver
        layers = []
        for index, layer in enumerate(model.trunk.layers):
            norms = [layer.norm1, layer.norm2, layer.norm3 if layer.cross else None]
            pointers = [p for n in norms for p in ((keep(n.weight), keep(n.bias)) if n is not None else (None, None))]
            attention = layer.self_attn
            folded = None if condition.time is None else condition.time[index]
            layers.append(
                Layer(
                    *pointers,
                    linear(attention.in_proj_weight, attention.in_proj_bias),
                    *(linear(m.weight, m.bias) for m in (attention.out_proj, layer.linear1, layer.linear2)),
                    keep(layer.multihead_attn.out_proj.bias) if layer.cross else None,
                    *((keep(folded.key), keep(folded.bias), keep(folded.value)) if folded else (None, None, None)),
                    *(pack_folding(layer.multihead_attn, keep, form) if folded else ()),
                )
            )
        matrices = [getattr(layer, name) for layer in layers for name in ("qkv", "out", "up", "down")]
        self.bytes_per_weight = max(WEIGHT_BYTES[matrix.format] for matrix in matrices)
        skip, rows = (1 if model.encoder_only else 0), self._rows
        position = model.pos_emb[0, :rows] + model.input_emb.bias
        time_rows = None
        if model.encoder_only and condition.raw_time is not None:
            time_rows = condition.raw_time[:, 0] + model.pos_emb[0, :1]
        segments, starts = [], [0]
        for step in self.hoisted.plan.steps:
            segments += [Segment(s.start, s.stop, -1 if s.block is None else s.block, s.store, s.gap) for s in step]
            starts.append(len(segments))
        return Model(
            layers=len(layers),
            heads=model.n_head,
            d=model.n_emb,
            d_in=model.input_dim,
            d_out=model.output_dim,
            tokens=rows,
            skip=skip,
            cross=int(not model.encoder_only),
            steps=solver.steps,
            stores=int(any(segment.store for segment in segments)),
            eps=model.ln_f.eps,
            embed=keep(model.input_emb.weight.t()),
            position=keep(position),
            time_rows=None if time_rows is None else keep(time_rows),
            self_mask=keep(self._self_mask()),
            final_gain=keep(model.ln_f.weight),
            final_shift=keep(model.ln_f.bias),
            head=pack(model.head.weight, model.head.bias, keep, form(model.head.weight)),
            layer=array(Layer, layers, keep),
            segments=array(Segment, segments, keep),
            segment_start=keep(torch.tensor(starts), torch.int32),
            solver=array(SolverRow, [SolverRow(*row) for row in solver.table.tolist()], keep),
            ahead=None if self.hoisted.plan.ahead is None else keep(torch.from_numpy(self.hoisted.plan.ahead)),
            clip=solver.clip,
            **self._condition_encoder(form),
        )

    def _condition_encoder(self, form: Callable[[Tensor], str]) -> dict[str, Any]:
        """Fields of a Model: what encodes condition tokens one by one, where the library does that."""
        model = self.model
        if not self._encodes:
            return {}
        embed, (up, _, down), position = model.cond_obs_emb, model.encoder, model.cond_pos_emb[0, 1:]
        return {
            "cond_embed": pack(embed.weight, embed.bias, self.keep, form(embed.weight)),
            "cond_up": pack(up.weight, up.bias, self.keep, form(up.weight)),
            "cond_down": pack(down.weight, down.bias, self.keep, form(down.weight)),
            "cond_position": self.keep(position + embed.bias),
            "cond_tokens": len(position),
        }

    @property
    def _encodes(self) -> bool:
        """Whether condition tokens beside the time token are encoded one by one, which the library does."""
        model = self.model
        return not model.encoder_only and model.n_cond_layers == 0 and bool(model.obs_as_cond)

    @property
    def _rows(self) -> int:
        """Tokens of a trajectory that are computed, the time token of the encoder-only form included."""
        model = self.model
        return model.T if self.tokens is None else self.tokens + model.T - model.horizon

    def _self_mask(self) -> Tensor:
        """[T, T rounded up]: the causal mask; padded columns are never seen."""
        rows = self._rows
        mask = torch.full((rows, round_up(rows)), float("-inf"))
        mask[:, :rows] = 0 if self.model.mask is None else self.model.mask[:rows, :rows]
        return mask

    # ---- once per observation ----
    def fold_mixed(self, observation: Tensor | None, batch: int) -> Folded | None:
        """Tables [slots, B, S, H, D] of condition tokens that mix with the time token (`n_cond_layers > 0`), or None.

        Samples one by one: in a matrix product over several, a sample's numbers may round differently.
        """
        model = self.model
        if model.encoder_only or model.n_cond_layers == 0:
            return None
        if observation is not None and model.obs_as_cond:
            samples = [self._fold_sample(observation[i : i + 1]) for i in range(batch)]
        else:
            samples = [self._fold_sample(None)] * batch
        tables = (
            torch.stack([getattr(sample, name) for sample in samples], dim=1) for name in ("key", "bias", "value")
        )
        return Folded(*(table.transpose(2, 3) for table in tables))  # [slots, B, H, S, ...] -> [slots, B, S, H, ...]

    def _fold_sample(self, observation: Tensor | None) -> Folded:
        """Condition tokens of one observation [1, To, Do], folded: keys [slots, H, S, D] ..."""
        condition = self.hoisted.condition
        folding = condition.folding
        if folding is None:
            raise ValueError("the encoder-only form has no condition tokens")
        encoded = condition.mixed_tokens(observation, 1)[:, 0]  # [N, S, D]
        parts = []
        for layer in range(len(self.model.trunk.layers)):
            steps = [condition.position[step] for other, step in self.slot_steps if other == layer]
            parts.append(folding.layer(layer)(encoded[steps])[0])
        return Folded(*(torch.cat([getattr(part, name) for part in parts]) for name in ("key", "bias", "value")))

    @torch.no_grad()
    def __call__(self, inputs: SamplerInputs, generator: Generators = None) -> Tensor:
        """See `Runtime.__call__`."""
        self.hoisted.check(inputs)
        model = self.model
        if inputs.known.shape[1] != model.horizon:
            raise ValueError(
                f"runtime=compiled takes trajectories of all {model.horizon} tokens the model was made for, "
                f"got {inputs.known.shape[1]}: use runtime=planned"
            )
        initial, noise = self.hoisted.draw(inputs.known, generator)
        inputs = inputs.head(self.tokens)
        known, denoised = inputs.known, inputs.known.shape[1]
        keep = Keep()
        observation = inputs.observation if self._encodes else None
        folded = self.fold_mixed(inputs.observation, len(inputs))
        memory = observation.shape[1] if observation is not None else 0 if folded is None else folded.key.shape[2]
        trajectory = initial[:, :denoised].float().contiguous()
        sigmas = self.hoisted.solver.table[:, COLUMNS.index("sigma")]
        pointers = [
            keep(draw[:, :denoised]) if draw is not None and sigma else None for draw, sigma in zip(noise, sigmas)
        ]
        total = memory + (0 if self.hoisted.condition.time is None else 1)
        mask = model.memory_mask
        cross_mask = torch.zeros(self._rows, max(1, total)) if mask is None else mask[: self._rows, :total]
        call = Call(
            batch=len(inputs),
            memory=memory,
            threads=self.threads or torch.get_num_threads(),
            level=self.level.number,
            observation=None if observation is None else keep(observation),
            memory_slot=None if self.slots is None else keep(self.slots, torch.int32),
            key=None if folded is None else keep(folded.key),
            bias=None if folded is None else keep(folded.bias),
            value=None if folded is None else keep(folded.value),
            cross_mask=keep(cross_mask),
            trajectory=trajectory.data_ptr(),
            noise=(c_void_p * len(pointers))(*pointers),
            condition=None if inputs.mask is None else keep(known),
            given=None if inputs.mask is None else keep(inputs.mask, torch.uint8),
        )
        engine.sample(self.library, self.native_model, call)
        self.chunks += 1
        return trajectory.to(known.dtype)

    def timed_parts(self, inputs: SamplerInputs, generator: torch.Generator) -> TimedParts:
        """See `Runtime.timed_parts`; the native loop has the scheduler's arithmetic, and condition tokens that
        do not mix."""
        return {
            "conditioning": lambda: self.fold_mixed(inputs.observation, len(inputs)),
            "scheduler": lambda: self.hoisted.draw(inputs.known, generator),
        }
