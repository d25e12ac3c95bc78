"""Attach an accelerated denoising loop to a policy, and take it off again."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor

from bac.acting_encoder import acting_with, fast_encoder, timed
from bac.belonging import certificate_of, foreign_to, name_of
from bac.flops import denoiser_cost
from bac.horizon import choose_tokens
from bac.loop import DenoisingLoop, Generators, Policy
from bac.original import adopt
from bac.report import Latencies, Report
from bac.runtime.choose import make_sampler
from bac.runtime.contract import Runtime
from bac.schedule import Schedule, ScheduleError
from bac.tuned import Tuned, TunedError
from bac.verification import Verification, compare, inputs_of


class Acceleration:
    """A reversible acceleration of one policy; made by `accelerate`.

    A `with` block attaches it on entering, and on leaving gives the policy its own sampler again, also after an
    exception. A process that lives long calls `attach()` and `detach()` instead. It may be attached again.

    Calls of `predict_action` may come from several threads. A deep copy has a policy of its own, a copy, and is
    attached to it if this one is attached to its policy; it has generated no chunks yet.
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
        deadline_ms: float | None = None,
    ):
        policy = adopt(policy)
        own = policy.sampler
        if not isinstance(own, DenoisingLoop):
            raise ValueError(
                f"this {type(policy).__name__} is already accelerated: leave that block first, or call its detach()"
            )
        self.latencies = Latencies(deadline_ms)
        self.policy, self.replaced = policy, own
        self.tuned = certificate_of(policy, schedule)
        self.loop = own
        if self.tuned is not None:
            self.loop, schedule = self.tuned.loop(own), self.tuned.schedule
            runtime, precision = runtime or self.tuned.runtime, precision or self.tuned.precision
            if precision != self.tuned.precision:
                raise TunedError(
                    f"the certificate is of precision {self.tuned.precision!r}, which changes the actions: "
                    f"leave precision={precision!r} out"
                )
        assert not isinstance(schedule, (str, Tuned))
        self.schedule, self.allow_foreign = schedule, allow_foreign
        self.precision = precision or "fp32"
        self.foreign = self._check_schedule()
        self.tokens = choose_tokens(policy, horizon)
        self.sampler: Runtime = make_sampler(
            self.loop, schedule, runtime or "planned", self.precision, threads, self.tokens.kept
        )
        fast, self.encoder_words = fast_encoder(policy, self.sampler)
        self.encoder = None if fast is None else timed(fast)
        self.verification: Verification | None = None
        self._uncounted = 0

    def _check_schedule(self) -> list[str]:
        """For what else the schedule was made, in words.

        Raises:
            ScheduleError: for something else, and that is not allowed.
        """
        foreign = [] if self.schedule is None else foreign_to(self.schedule, self.policy, self.loop)
        if foreign and not self.allow_foreign:
            raise ScheduleError(
                f"this schedule is not for this policy: it was made for {' and '.join(foreign)}. "
                "Profile this policy to get its own, or pass allow_foreign_schedule=True to try this one all the same"
            )
        return foreign

    # ---- attaching ----
    @property
    def attached(self) -> bool:
        """Whether the policy acts through this acceleration."""
        return self.policy.sampler is self.sampler

    def attach(self) -> Acceleration:
        """Accelerates the policy until `detach()`; returns itself.

        Raises:
            ValueError: the policy is accelerated already, or has got another sampler since.
            ScheduleError, TunedError: the policy has got other weights than those the schedule was made for.
        """
        if not isinstance(self.policy.sampler, DenoisingLoop):
            raise ValueError("the policy is already accelerated: leave that block first, or call its detach()")
        if self.policy.sampler is not self.replaced:
            raise ValueError(
                "the policy has got another sampler since accelerate() prepared this one: call accelerate() again"
            )
        if self.tuned is not None:
            self.tuned.check(self.policy, self.replaced)
        self.foreign = self._check_schedule()
        self.policy.sampler = self.sampler
        if self.encoder is not None:
            self.encoder.attach(self.policy)
        return self

    def detach(self) -> None:
        """Gives the policy its own sampler again.

        Raises:
            ValueError: the policy does not act through this acceleration.
        """
        if not self.attached:
            raise ValueError("not attached: there is nothing to detach")
        self.policy.sampler = self.replaced
        if self.encoder is not None:
            self.encoder.detach(self.policy)

    def __enter__(self) -> Acceleration:
        return self.attach()

    def __exit__(self, *exception: Any) -> None:
        if self.attached:  # else it was detached inside the block
            self.detach()

    def __deepcopy__(self, memo: dict) -> Acceleration:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update({name: copy.deepcopy(value, memo) for name, value in vars(self).items()})
        twin._uncounted = twin.sampler.chunks
        return twin

    # ---- acting ----
    @property
    def milliseconds(self) -> Any:
        """Latencies of `predict_action`, the last 10,000, in milliseconds."""
        return self.latencies.milliseconds

    def predict_action(self, obs_dict: dict[str, Tensor], generator: Generators = None) -> dict[str, Tensor]:
        """As the policy's own `predict_action`; latencies are kept for the report (the last 10,000)."""
        if not self.attached:
            raise ValueError("not attached: call this inside `with accelerate(...) as fast:`, or after attach()")
        self._check_chunk()
        started = time.perf_counter()
        result = self.policy.predict_action(obs_dict, generator)
        if result["action"].is_cuda:
            torch.cuda.synchronize(result["action"].device)
        self.latencies.add((time.perf_counter() - started) * 1e3)
        return result

    def warm_up(self, chunks: int = 2, observation: dict[str, Tensor] | None = None) -> None:
        """Generates chunks that count nowhere, so that the first one that counts is as fast as the others.

        Args:
            observation: as of `predict_action`; None: one within the limits seen in training.
        """
        untimed = None if self.encoder is None else self.encoder.encoder
        for _ in range(chunks):
            with acting_with(self.policy, untimed):
                inputs = inputs_of(self.policy, observation)
            self.sampler(inputs, torch.Generator().manual_seed(0))
            self._uncounted += 1

    def verify(self, observation: dict[str, Tensor] | None = None) -> Verification:
        """Compares one chunk with the `reference` runtime, under the same schedule and from the same noise.

        Args:
            observation: as of `predict_action`; None: one within the limits seen in training.

        Raises:
            VerificationError: they differ by more than rounding.
            Unavailable: this is the reference.
        """
        self.verification = compare(self.sampler, self.loop, inputs_of(self.policy, observation), self.precision)
        self._uncounted += 1
        return self.verification

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
        chunks, encoder = self.sampler.chunks - self._uncounted, self.encoder
        encoding = None if encoder is None else encoder.latencies.percentiles()
        return Report(
            runtime=self.sampler.name,
            sampler=name_of(self.sampler.base, self.policy),
            schedule=schedule.origin + (f" (made for {' and '.join(self.foreign)})" if self.foreign else ""),
            chunks=chunks,
            block_updates=sum(self.sampler.block_updates.values()) - self._uncounted * schedule.update_count,
            scheduled_updates=schedule.update_count,
            full_updates=full.update_count,
            tokens=tokens,
            gflop_per_chunk=flops(schedule) / 1e9,
            full_gflop_per_chunk=full_flops(full) / 1e9,
            fewer_by_tokens=full_flops(full) / flops(full),
            fewer_by_schedule=flops(full) / flops(schedule),
            latency=self.latencies.percentiles(),
            deadline_ms=self.latencies.deadline_ms,
            timed=self.latencies.timed,
            missed=self.latencies.missed,
            prepare_seconds=self.sampler.prepare_seconds + (0 if encoder is None else encoder.encoder.prepare_seconds),
            proof=None if self.tuned is None else str(self.tuned),
            verified=None if self.verification is None else str(self.verification),
            how=getattr(self.sampler, "how", None),
            encoder=self.encoder_words,
            encoder_ms=None if encoding is None else encoding["p50"],
            frames=0 if encoder is None else encoder.frames,
            reused_frames=0 if encoder is None else encoder.reused,
            precision=self.precision,
        )


def accelerate(
    policy: Policy,
    schedule: Schedule | Tuned | str | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    allow_foreign_schedule: bool = False,
    horizon: str = "executed",
    verify: bool = False,
    warm_up: int = 0,
    deadline_ms: float | None = None,
) -> Acceleration:
    """Speeds up a Transformer Diffusion Policy inside a `with` block; no retraining, no change of its weights.

        with accelerate(policy, Schedule.load("assets/pusht_lowdim/schedules/bac_s10.json")) as fast:
            action = fast.predict_action(obs)["action"]
        print(fast.report())

        with accelerate(policy, "tuned") as fast: ...                  # what bac tune has proven for these weights

        fast = accelerate(policy, "tuned", verify=True, warm_up=2, deadline_ms=50).attach()      # a long-lived process
        action = fast.predict_action(obs)["action"]
        fast.detach()

    Args:
        policy: a Transformer Diffusion Policy, also one of the original project's own classes (see `bac.original`);
            inside the block its own `predict_action` is accelerated too.
        schedule: which block computes at which step; None computes all of them (the full policy, hoisted). A `Tuned`,
            or 'tuned' for the one of this policy in assets/*/tuned.json: sampler and schedule as they were proven.
        runtime: 'reference', 'planned' or 'compiled'; None: that of the certificate, without one 'planned'.
        precision: 'fp32', or 'bf16' / 'int8' / 'fp16' where runtime and processor offer it; None: that of the
            certificate, without one 'fp32'.
        threads: of the compiled CPU runtime; torch's number when None.
        allow_foreign_schedule: take a schedule that was profiled on other weights or with another sampler; the report
            says so.
        horizon: 'executed' denoises the tokens that reach the executed actions, where leaving out the others is exact
            (see `bac.horizon`): `predict_action` then gives the same 'action' and a shorter 'action_pred'. 'full'
            denoises all of them.
        verify: compares one chunk with `reference` first, see `Acceleration.verify`.
        warm_up: chunks to generate before any counts, see `Acceleration.warm_up`.
        deadline_ms: what `predict_action` may take; the report says how many chunks were later.

    Raises:
        ScheduleError: the schedule is for another model, other weights, another sampler or number of steps.
        TunedError: the certificate is for another policy, or there is none.
        NoDenoiser: the policy's model is no transformer whose branches are known, such as a U-Net.
        UnknownModule: the model has a part that the runtime would leave out, such as an adapter or a quantised layer.
        VerificationError: the runtime's actions are not those of the reference.
        ValueError, RuntimeError: the runtime is not available here; the message says what is missing.
    """
    fast = Acceleration(policy, schedule, runtime, precision, threads, allow_foreign_schedule, horizon, deadline_ms)
    if verify:
        fast.verify()
    if warm_up:
        fast.warm_up(warm_up)
    return fast
