"""One line of benchmark.json: a method in a runtime, beside the plain policy and what the machine can do at best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.flops import denoiser_cost, hoisted_cost
from bac.horizon import Tokens
from bac.schedule import Schedule
from bac_workbench.timing.floors import Floors, weight_bytes_per_chunk
from bac_workbench.timing.latency import Latency, levers, speed_ratio

#: the full policy denoising all tokens, beside the same with the executed ones
ALL_TOKENS = "full_all_tokens"
#: method with its sampler, such as bac_s7@ddim16, and runtime
Key = tuple[str, str]


@dataclass(frozen=True)
class Run:
    """One interleaved run of all methods in all runtimes at one batch size.

    Attributes:
        own_sampler, own_steps: the checkpoint's own sampler, by name, and its number of denoising steps.
        tokens: that the methods denoise; `full_all_tokens` denoises all.
        actions: the last predictions of each, [B, T, Da], for the same observations and noise.
    """

    policy: Any
    own_sampler: str
    own_steps: int
    batch: int
    tokens: Tokens
    floors: Floors
    latencies: dict[Key, Latency]
    actions: dict[Key, Tensor]

    def full(self, runtime: str) -> Latency:
        """Of the full policy with the checkpoint's own sampler, on the methods' tokens."""
        return self.latencies[f"full@{self.own_sampler}", runtime]

    def all_tokens(self, runtime: str) -> Latency:
        """Of the same on all tokens; in the reference runtime this is the plain policy."""
        method = "full" if self.tokens.kept is None else ALL_TOKENS
        return self.latencies[f"{method}@{self.own_sampler}", runtime]

    def largest_difference(self, key: Key) -> float | None:
        """Of the actions from those in the reference runtime, in normalised units; None if that was not run.

        In these units the range of actions seen in training is [-1, 1].
        """
        reference = (key[0], "reference")
        if reference not in self.actions:
            return None
        scale = self.policy.normalizer["action"].scale
        return ((self.actions[key] - self.actions[reference]) * scale).abs().max().item()


def make_row(
    run: Run, key: Key, schedule: Schedule, parts: dict[str, float], bytes_per_weight: int, precision: str
) -> dict[str, Any]:
    """The line of one method in one runtime.

    Args:
        parts: milliseconds of each part of a chunk, see `timing.breakdown`.
        bytes_per_weight: as the runtime stores the denoiser's weights.
        precision: that it computes in.
    """
    method, runtime = key
    label, _, sampler = method.partition("@")
    latency, model = run.latencies[key], run.policy.model
    denoised = run.tokens.total if label == ALL_TOKENS else run.tokens.denoised
    cost = denoiser_cost(model, denoised)
    flops = cost.flops(schedule)
    bound = cost.flops(Schedule.full(schedule.blocks, run.own_steps)) / flops
    full = run.all_tokens(runtime) if label == ALL_TOKENS else run.full(runtime)
    speedup_same_runtime = speed_ratio(full, latency)
    own_reference = run.latencies.get((method, "reference"))
    computed = flops if runtime == "reference" else hoisted_cost(model, denoised).flops(schedule)
    arithmetic_ms = run.batch * computed / run.floors.gflops_of(precision) / 1e6
    weights_ms = weight_bytes_per_chunk(model, schedule, bytes_per_weight) / run.floors.weights_gb_per_s / 1e6
    return {
        "method": label,
        "sampler": sampler,
        "runtime": runtime,
        "batch": run.batch,
        "threads": torch.get_num_threads(),
        "device": run.policy.device.type,
        "tokens": denoised,
        **latency.to_dict(),
        "gflop_per_chunk": round(flops / 1e9, 4),
        "speedup": round(speed_ratio(run.all_tokens("reference"), latency), 3),
        "speedup_same_runtime": round(speedup_same_runtime, 3),
        "levers": levers(run.all_tokens("reference"), run.all_tokens(runtime), full, latency),
        "max_action_diff": run.largest_difference(key),
        "speedup_vs_same_method_reference": None
        if own_reference is None
        else round(speed_ratio(own_reference, latency), 3),
        "flop_ratio_bound": round(bound, 3),
        "share_of_flop_bound": round(speedup_same_runtime / bound, 3),
        "computed_gflop_per_chunk": round(computed / 1e9, 4),
        "ms_arithmetic_floor": round(arithmetic_ms, 3),
        "ms_weights_floor": round(weights_ms, 3),
        "share_of_arithmetic_floor": round(arithmetic_ms / latency.p50, 3),
        "share_of_weights_floor": round(weights_ms / latency.p50, 3),
        "breakdown_ms": parts,
    }
