"""The `compiled` runtime on a CPU: the whole denoising loop in one call of a native library (bac/native).

Same program as `planned`, with prepacked weights, fused epilogues (bias, GELU, residual, store) and no per-operation
overhead. Every row is computed in the same order whatever the batch, so a sample's action does not depend on its batch.
"""

from __future__ import annotations

import time
from ctypes import c_void_p

import torch
from torch import Tensor

from bac.folding import Folded, observation_tokens
from bac.native import build
from bac.native.structs import Call, Keep, Layer, Model, Segment, array, pack, round_up
from bac.runtime.memory import MixedMemory
from bac.runtime.planned import PlannedSampler
from bac.schedule import Schedule
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler, Generators


class CompiledCpuSampler(PlannedSampler):
    """Denoises in native code. `threads`: torch's number of threads unless given."""

    name = "compiled"

    @torch.no_grad()
    def __init__(
        self,
        base: DiffusionSampler,
        schedule: Schedule | None = None,
        precision: str = "fp32",
        threads: int | None = None,
    ):
        if precision != "fp32":
            raise ValueError(
                f"runtime=compiled computes in fp32 on a CPU; for precision={precision} use runtime=planned"
            )
        if base.model.n_emb % 16:
            raise ValueError(
                f"runtime=compiled needs n_emb divisible by 16, this model has {base.model.n_emb}: use runtime=planned"
            )
        if threads is not None:
            build.check_threads(threads)
        started = time.perf_counter()
        self.library = build.library()
        super().__init__(base, schedule)
        if self.device.type != "cpu":
            raise ValueError(f"the policy is on {self.device}, not on the CPU")
        self.threads = threads
        self.keep = Keep()
        self.slots, self.slot_steps = self._memory_slots()
        self.native_model = self._pack()
        self.prepare_seconds = time.perf_counter() - started

    def _options(self) -> tuple:
        return self.schedule, self.precision, self.threads

    # ---- once per model ----
    def _memory_slots(self) -> tuple[Tensor | None, list[tuple[int, int]]]:
        """Slots of the condition tables. Observation tokens are the same at every step: one slot per layer. Where tokens
        mix (`n_cond_layers > 0`), one per computed cross-attention."""
        model = self.model
        if model.encoder_only:
            return None, []
        n_layers = len(model.trunk.layers)
        slots = torch.full((n_layers, self.solver.steps), -1, dtype=torch.int32)
        if model.n_cond_layers == 0:
            slots[:] = torch.arange(n_layers, dtype=torch.int32)[:, None]
            return slots, []
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
        half = bool(self.library.bac_half_weights())
        linear = lambda module: pack(module.weight, module.bias, keep, half)  # noqa: E731
        layers = []
        for index, layer in enumerate(model.trunk.layers):
            norms = [layer.norm1, layer.norm2, layer.norm3 if layer.cross else None]
            pointers = [p for n in norms for p in ((keep(n.weight), keep(n.bias)) if n is not None else (None, None))]
            attention = layer.self_attn
            folded = self.time[index] if isinstance(self.time, Folded) else None
            layers.append(
                Layer(
                    *pointers,
                    pack(attention.in_proj_weight, attention.in_proj_bias, keep, half),
                    linear(attention.out_proj),
                    linear(layer.linear1),
                    linear(layer.linear2),
                    keep(layer.multihead_attn.out_proj.bias) if layer.cross else None,
                    *((keep(folded.key), keep(folded.bias), keep(folded.value)) if folded else (None, None, None)),
                )
            )
        matrices = [getattr(layer, name) for layer in layers for name in ("qkv", "out", "up", "down")]
        self.bytes_per_weight = 2 if all(matrix.half for matrix in matrices) else 4
        skip = 1 if model.encoder_only else 0
        position = model.pos_emb[0] + model.input_emb.bias
        time_rows = self.time[:, 0] + model.pos_emb[0, :1] if model.encoder_only else None
        segments, starts = [], [0]
        for step in self.plan.steps:
            segments += [Segment(s.start, s.stop, -1 if s.block is None else s.block, int(s.store)) for s in step]
            starts.append(len(segments))
        table = torch.from_numpy(self.solver.table)
        return Model(
            len(layers),
            model.n_head,
            model.n_emb,
            model.input_dim,
            model.output_dim,
            model.T,
            skip,
            int(not model.encoder_only),
            self.solver.steps,
            model.ln_f.eps,
            keep(model.input_emb.weight.t()),
            keep(position),
            keep(time_rows) if skip else None,
            keep(self._self_mask()),
            keep(model.ln_f.weight),
            keep(model.ln_f.bias),
            linear(model.head),
            array(Layer, layers, keep),
            array(Segment, segments, keep),
            keep(torch.tensor(starts), torch.int32),
            keep(table),
            self.solver.clip,
        )

    def _self_mask(self) -> Tensor:
        """[T, T rounded up]: the causal mask; padded columns are never seen."""
        tokens = self.model.T
        mask = torch.full((tokens, round_up(tokens)), float("-inf"))
        mask[:, :tokens] = 0 if self.model.mask is None else self.model.mask
        return mask

    # ---- once per observation ----
    def fold_memory(self, cond: Tensor | None, batch: int) -> tuple[int, Folded | None]:
        """Number of condition tokens beside the time token and their tables [slots, B, S, H, D].

        Samples are encoded one by one: in a matrix product over several, a sample's numbers may round differently.
        """
        model = self.model
        if model.encoder_only or (model.n_cond_layers == 0 and not model.obs_as_cond):
            return 0, None
        if model.obs_as_cond:
            samples = [self._fold_sample(cond[i : i + 1]) for i in range(batch)]
        else:
            samples = [self._fold_sample(None)] * batch
        tables = (
            torch.stack([getattr(sample, name) for sample in samples], dim=1) for name in ("key", "bias", "value")
        )
        folded = Folded(*(table.transpose(2, 3) for table in tables))  # [slots, B, H, S, ...] -> [slots, B, S, H, ...]
        return folded.key.shape[2], folded

    def _fold_sample(self, cond: Tensor | None) -> Folded:
        """Condition tokens of one observation [1, To, Do], folded: keys [slots, H, S, D] ..."""
        if self.model.n_cond_layers == 0:
            return self.folding(observation_tokens(self.model, cond))[:, 0]
        memory = MixedMemory(self, cond, 1, self.model.horizon).memory[:, 0]  # [N, S, D]
        parts = []
        for layer in range(len(self.model.trunk.layers)):
            steps = [self.memory_position[step] for other, step in self.slot_steps if other == layer]
            parts.append(self.folding.layer(layer)(memory[steps])[0])
        return Folded(*(torch.cat([getattr(part, name) for part in parts]) for name in ("key", "bias", "value")))

    @torch.no_grad()
    def __call__(
        self, condition: Tensor, given: Tensor | None, cond: Tensor | None, generator: Generators = None
    ) -> Tensor:
        """See `DiffusionSampler.__call__`: same arguments, same noise."""
        self.check(condition, given, cond)
        if condition.shape[1] != self.model.horizon:
            raise ValueError(
                f"runtime=compiled denoises all {self.model.horizon} tokens the model was made for, got {condition.shape[1]}: "
                "use runtime=planned"
            )
        initial, noise = self.draw(condition, generator)
        keep = Keep()
        batch = condition.shape[0]
        memory, folded = self.fold_memory(cond, batch)
        trajectory = initial.float().contiguous()
        pointers = [
            keep(draw) if draw is not None and sigma else None for draw, sigma in zip(noise, self.solver.table[:, 6])
        ]
        total = memory + (1 if isinstance(self.time, Folded) else 0)
        mask = self.model.memory_mask
        cross_mask = torch.zeros(self.model.T, max(1, total)) if mask is None else mask[: self.model.T, :total]
        call = Call(
            batch,
            memory,
            self.threads or torch.get_num_threads(),
            keep(self.slots, torch.int32) if self.slots is not None else None,
            *((keep(folded.key), keep(folded.bias), keep(folded.value)) if folded is not None else (None, None, None)),
            keep(cross_mask),
            trajectory.data_ptr(),
            (c_void_p * len(pointers))(*pointers),
            keep(condition) if given is not None else None,
            keep(given, torch.uint8) if given is not None else None,
        )
        build.sample(self.library, self.native_model, call)
        self.chunks += 1
        return trajectory.to(condition.dtype)
