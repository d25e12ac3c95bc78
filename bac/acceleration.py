"""Attach an accelerated denoising loop to a policy, and take it off again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bac.flops import denoiser_cost
from bac.horizon import Tokens, choose_tokens
from bac.loop import DenoisingLoop, Generators, Policy
from bac.runtime.choose import make_sampler
from bac.runtime.contract import Runtime
from bac.sampler_name import loop_name
from bac.schedule import Schedule, ScheduleError
from bac.tuned import Tuned, TunedError


@dataclass(frozen=True)
class Report:
    """What an accelerated policy has done.

    Attributes:
        chunks: action chunks generated (a batch counts once).
        sampler: name of the sampler (see `bac.sampler_name`).
        schedule: what the schedule says of itself; with "made for ..." where that is other weights or another sampler.
        block_updates: block computations counted over these chunks.
        scheduled_updates: block computations the schedule asks for per chunk.
        tokens: those that are denoised, and of how many.
        gflop_per_chunk: arithmetic of one sample's chunk as it is denoised.
        full_gflop_per_chunk: likewise of the full policy: all tokens, every block at every step.
        fewer_by_tokens, fewer_by_schedule: how many times fewer FLOPs because of each; their product is the ratio of
            the two numbers above.
        ms_per_chunk: median wall-clock of `predict_action` in milliseconds, observation encoding included; None before
            any.
        prepare_seconds: one-off preparation (precomputed tables, packing, compilation or graph capture).
        proof: what the certificate says, where one is followed.
    """

    runtime: str
    sampler: str
    schedule: str
    chunks: int
    block_updates: int
    scheduled_updates: int
    full_updates: int
    tokens: Tokens
    gflop_per_chunk: float
    full_gflop_per_chunk: float
    fewer_by_tokens: float
    fewer_by_schedule: float
    ms_per_chunk: float | None
    prepare_seconds: float
    proof: str | None = None

    def __str__(self) -> str:
        latency = "no chunk yet" if self.ms_per_chunk is None else f"{self.ms_per_chunk:.1f} ms per chunk (median)"
        ratio = self.full_gflop_per_chunk / self.gflop_per_chunk
        return (
            f"{self.schedule} on {self.sampler}, runtime {self.runtime}: {self.chunks} chunks, {latency}\n"
            f"block updates per chunk {self.scheduled_updates} of {self.full_updates}, "
            f"{self.block_updates} computed in all; {self.tokens}\n"
            f"denoiser {self.gflop_per_chunk:.2f} GFLOP per chunk, {ratio:.2f}x fewer than the full policy's "
            f"{self.full_gflop_per_chunk:.2f} (tokens {self.fewer_by_tokens:.2f}x, schedule "
            f"{self.fewer_by_schedule:.2f}x; FLOPs, not time); prepared in {self.prepare_seconds:.2f} s"
            + ("" if self.proof is None else f"\nproven: {self.proof}")
        )


class Acceleration:
    """A reversible acceleration of one policy; made by `accelerate`.

    Attaches on entering the `with` block and restores the policy's own sampler on leaving it, also after an exception.
    """

    def __init__(
        self,
        policy: Policy,
        schedule: Schedule | Tuned | str | None,
        runtime: str | None,
        precision: str | None,
        threads: int | None,
        allow_foreign: bool = False,
        horizon: str = "executed",
    ):
        own = getattr(policy, "sampler", None)
        if not isinstance(own, DenoisingLoop):
            state = (
                "is already accelerated: leave that block first" if own is not None else "has no `sampler` to replace"
            )
            raise ValueError(f"this {type(policy).__name__} {state}")
        self.policy, self.replaced = policy, own
        self.tuned = certificate_of(policy, schedule)
        loop = own
        if self.tuned is not None:
            loop, schedule = self.tuned.loop(own), self.tuned.schedule
            runtime, precision = runtime or self.tuned.runtime, precision or self.tuned.precision
            if precision != self.tuned.precision:
                raise TunedError(
                    f"the certificate is of precision {self.tuned.precision!r}, which changes the actions: "
                    f"leave precision={precision!r} out"
                )
        assert not isinstance(schedule, (str, Tuned))
        self.schedule = schedule
        self.foreign = [] if schedule is None else foreign_to(schedule, policy, loop)
        if self.foreign and not allow_foreign:
            raise ScheduleError(
                f"this schedule is not for this policy: it was made for {' and '.join(self.foreign)}. "
                "Profile this policy to get its own, or pass allow_foreign_schedule=True to try this one all the same"
            )
        self.tokens = choose_tokens(policy, horizon)
        self.sampler: Runtime = make_sampler(
            loop, schedule, runtime or "planned", precision or "fp32", threads, self.tokens.kept
        )
        self.own: DenoisingLoop | None = None
        self.milliseconds: list[float] = []

    def __enter__(self) -> Acceleration:
        if not isinstance(self.policy.sampler, DenoisingLoop):
            raise ValueError("the policy is already accelerated: leave that block first")
        if self.policy.sampler is not self.replaced:
            raise ValueError(
                "the policy has got another sampler since accelerate() prepared this one: call accelerate() again"
            )
        self.own, self.policy.sampler = self.policy.sampler, self.sampler
        return self

    def __exit__(self, *exception: Any) -> None:
        self.policy.sampler, self.own = self.own, None

    def predict_action(self, obs_dict: dict[str, Tensor], generator: Generators = None) -> dict[str, Tensor]:
        """As the policy's own `predict_action`; latencies are kept for the report (the last 10,000)."""
        if self.policy.sampler is not self.sampler:
            raise ValueError("not attached: call this inside `with accelerate(...) as fast:`")
        self._check_chunk()
        started = time.perf_counter()
        result = self.policy.predict_action(obs_dict, generator)
        if result["action"].is_cuda:
            torch.cuda.synchronize(result["action"].device)
        self.milliseconds.append((time.perf_counter() - started) * 1e3)
        if len(self.milliseconds) > 10_000:
            del self.milliseconds[:5_000]
        return result

    def _check_chunk(self) -> None:
        """Raises:
        RuntimeError: by now the policy executes more than is denoised.
        """
        tokens = self.sampler.tokens
        if tokens is not None and (stop := self.policy.chunk.stop) > tokens:
            raise RuntimeError(
                f"the executed chunk now ends at token {stop} and {tokens} are denoised: call accelerate() again"
            )

    def report(self) -> Report:
        schedule, model = self.sampler.schedule, self.sampler.base.model
        tokens = self.tokens
        flops, full_flops = denoiser_cost(model, tokens.denoised).flops, denoiser_cost(model, tokens.total).flops
        full = Schedule.full(schedule.blocks, self.replaced.num_inference_steps)
        median = sorted(self.milliseconds)[len(self.milliseconds) // 2] if self.milliseconds else None
        return Report(
            runtime=self.sampler.name,
            sampler=_name_of(self.sampler.base, self.policy),
            schedule=schedule.origin + (f" (made for {' and '.join(self.foreign)})" if self.foreign else ""),
            chunks=self.sampler.chunks,
            block_updates=sum(self.sampler.block_updates.values()),
            scheduled_updates=schedule.update_count,
            full_updates=full.update_count,
            tokens=tokens,
            gflop_per_chunk=flops(schedule) / 1e9,
            full_gflop_per_chunk=full_flops(full) / 1e9,
            fewer_by_tokens=full_flops(full) / flops(full),
            fewer_by_schedule=flops(full) / flops(schedule),
            ms_per_chunk=median,
            prepare_seconds=self.sampler.prepare_seconds,
            proof=None if self.tuned is None else str(self.tuned),
        )


def certificate_of(policy: Policy, schedule: Schedule | Tuned | str | None) -> Tuned | None:
    """The certificate that `accelerate` was told to follow, if any.

    Raises:
        TunedError: it is for another policy, or there is none.
        ValueError: a word that is not 'tuned'.
    """
    if isinstance(schedule, str):
        if schedule != "tuned":
            raise ValueError(f"schedule={schedule!r} is not known: give a Schedule, a Tuned, 'tuned' or None")
        return Tuned.find(policy)
    if isinstance(schedule, Tuned):
        schedule.check(policy)
        return schedule
    return None


def foreign_to(schedule: Schedule, policy: Policy, own: DenoisingLoop) -> list[str]:
    """What a schedule was made for, in words, where that is other weights or another sampler than this policy's.

    Weights that were changed since are other weights. Schedules that need no profile, such as uniform ones, fit every
    policy.
    """
    made = schedule.provenance
    found = []
    if made.checkpoint_hash is not None:
        weights = policy.weights_hash()
        if weights != made.checkpoint_hash:
            found.append(f"the weights {made.checkpoint_hash[:12]}, which are not the policy's {weights[:12]}")
    if made.sampler is not None and made.sampler != _name_of(own, policy):
        found.append(f"the sampler {made.sampler}, which is not the policy's {_name_of(own, policy)}")
    return found


def _name_of(own: DenoisingLoop, policy: Policy) -> str:
    return loop_name(own, policy.noise_scheduler)


def accelerate(
    policy: Policy,
    schedule: Schedule | Tuned | str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    allow_foreign_schedule: bool = False,
    horizon: str = "executed",
) -> Acceleration:
    """Speeds up a Transformer Diffusion Policy inside a `with` block; no retraining, no change of its weights.

        with accelerate(policy, Schedule.load("assets/pusht_lowdim/schedules/bac_s10.json")) as fast:
            action = fast.predict_action(obs)["action"]
        print(fast.report())

        with accelerate(policy, "tuned") as fast: ...                  # what bac tune has proven for these weights

    Args:
        policy: a Transformer Diffusion Policy; inside the block its own `predict_action` is accelerated too.
        schedule: which block computes at which step; None computes all of them (the full policy, hoisted). A `Tuned`,
            or 'tuned' for the one of this policy in assets/*/tuned.json: sampler and schedule as they were proven.
        runtime: 'reference', 'planned' or 'compiled'; None: that of the certificate, without one 'planned'.
        precision: 'fp32', or 'bf16' / 'fp16' where runtime and processor offer it; None: that of the certificate,
            without one 'fp32'.
        threads: of the compiled CPU runtime; torch's number when None.
        allow_foreign_schedule: take a schedule that was profiled on other weights or with another sampler; the report
            says so.
        horizon: 'executed' denoises the tokens that reach the executed actions, where leaving out the others is exact
            (see `bac.horizon`): `predict_action` then gives the same 'action' and a shorter 'action_pred'. 'full'
            denoises all of them.

    Raises:
        ScheduleError: the schedule is for another model, other weights, another sampler or number of steps.
        TunedError: the certificate is for another policy, or there is none.
        ValueError, RuntimeError: the runtime is not available here; the message says what is missing.
    """
    return Acceleration(policy, schedule, runtime, precision, threads, allow_foreign_schedule, horizon)
