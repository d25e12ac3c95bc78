"""Extrapolated reuse: the same in every runtime, exact on lines, refused where a sampler adds noise."""

import copy
import dataclasses
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bac import Schedule, ScheduleError, accelerate
from bac.blocks import decoder_blocks
from bac.flops import denoiser_cost
from bac.plan import Plan
from bac.runtime.choose import make_sampler
from bac.runtime.reference import ReferenceSampler
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.solver import solver_of
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.test_plan import schedules
from tests.bac.test_runtimes import inputs, models, noise_sources, rounding
from tests.bac.tiny_policies import (
    FAST,
    SAMPLERS,
    TOLERANCE,
    act,
    error,
    every_runtime,
    hoisting_runtime,
    random_schedule,
    seeded,
    tiny_model,
    tiny_policy,
    tiny_sampler,
)

DETERMINISTIC = sorted(name for name in SAMPLERS if solver_of(tiny_sampler(tiny_model(), name)).deterministic)


def extrapolating(schedule: Schedule) -> Schedule:
    return dataclasses.replace(schedule, reuse="extrapolate")


def by_definition(schedule, outputs):
    """Residual stream at the end of each step, from the formula of `Schedule.reuse`."""
    streams = []
    for k, row in enumerate(schedule.updates):
        x = Fraction(0)
        for block in range(len(row)):
            *earlier, last = np.flatnonzero(schedule.updates[: k + 1, block]).tolist()
            x += outputs[last, block]
            if earlier:
                slope = (outputs[last, block] - outputs[earlier[-1], block]) / Fraction(last - earlier[-1])
                x += (k - last) * slope
        streams.append(x)
    return streams


def by_plan(plan, outputs):
    """The same by executing the program. What is read without having been stored, or stored in vain, is an error."""
    stored, slopes, sums, unused, streams = {}, {}, {}, set(), []
    for k, step in enumerate(plan.steps):
        x = Fraction(0)
        for segment in step:
            run = (segment.start, segment.stop)
            slope = sum((slopes.get(block, Fraction(0)) for block in range(*run)), Fraction(0))
            if segment.memo:
                since, total = sums[run] if segment.keep else sums.pop(run)
                x += total + (k - since) * slope
            else:
                ahead = (int(plan.ahead[k, b]) * slopes[b] if plan.ahead[k, b] else 0 for b in range(*run))
                total = sum((stored[block] for block in range(*run)), Fraction(0)) + sum(ahead, Fraction(0))
                if segment.keep:
                    sums[run] = k, total
                x += total
            unused -= set(range(*run))
            if segment.block is not None:
                out = outputs[k, segment.block]
                if segment.gap:
                    slopes[segment.block] = (out - stored[segment.block]) / segment.gap
                    unused.discard(segment.block)
                assert segment.block not in unused, "stored, but computed again before it was used"
                stored.pop(segment.block, None)
                if segment.store:
                    stored[segment.block] = out
                    unused.add(segment.block)
                x += out
        streams.append(x)
    assert not sums and not unused
    return streams


@settings(max_examples=200)
@given(schedules(), st.integers(0, 10**6))
def test_execution(schedule, seed):
    schedule = extrapolating(schedule)
    numbers = np.random.default_rng(seed).integers(1, 2**40, schedule.updates.shape)
    outputs = np.vectorize(Fraction, otypes=[object])(numbers.astype(object))
    assert by_plan(Plan.of(schedule), outputs) == by_definition(schedule, outputs)


@settings(max_examples=100)
@given(schedules(), st.integers(0, 10**6))
def test_outputs_that_change_along_lines_are_exact(schedule, seed):
    """Once every block has updated twice, whatever the schedule: as if every block computed at every step."""
    updates = schedule.updates.copy()
    updates[:2] = True
    schedule = Schedule(updates, schedule.blocks, reuse="extrapolate")
    start, slope = np.random.default_rng(seed).integers(-100, 100, (2, len(schedule.blocks)))
    lines = start + np.arange(schedule.steps)[:, None] * slope
    outputs = np.vectorize(Fraction, otypes=[object])(lines.astype(object))
    assert by_plan(Plan.of(schedule), outputs) == outputs.sum(axis=1).tolist()


@hoisting_runtime
@settings(max_examples=60)
@given(st.data())
def test_equal_to_reference(runtime, data):
    model, steps = data.draw(models()), data.draw(st.integers(1, 12))
    base = tiny_sampler(model, data.draw(st.sampled_from(DETERMINISTIC)), steps)
    density = data.draw(st.sampled_from([0.1, 0.3, 0.6]))
    schedule = extrapolating(random_schedule(model, steps, density, data.draw(st.integers(0, 10**6))))
    drawn = data.draw(inputs(model))
    generators = data.draw(noise_sources(len(drawn)))
    expected = ReferenceSampler(base, schedule)(drawn, generators())
    # a line through rounded outputs doubles their errors, more so the further it goes
    assert error(FAST[runtime](base, schedule)(drawn, generators()), expected) < 20 * rounding(base)


@every_runtime
def test_it_is_not_what_holding_gives(runtime):
    model = tiny_model()
    base, schedule = tiny_sampler(model, "ddim"), random_schedule(model, 10, 0.4, 2)
    drawn = SamplerInputs(torch.zeros(2, 6, 2), observation=torch.randn(2, 2, 3))
    held, ahead = (make_sampler(base, s, runtime)(drawn, seeded(0, 1)) for s in (schedule, extrapolating(schedule)))
    assert error(ahead, held) > 1000 * TOLERANCE
    once = Schedule.from_steps({name: [0] for name in schedule.blocks}, 10)
    held, ahead = (make_sampler(base, s, runtime)(drawn, seeded(0, 1)) for s in (once, extrapolating(once)))
    assert error(ahead, held) < TOLERANCE, "there is no line through one output"


@every_runtime
def test_executed_tokens_are_the_same(runtime):
    policy = tiny_policy("ddim")
    schedule = extrapolating(random_schedule(policy.model, 10, 0.4, 2))
    actions = {}
    for horizon in ("executed", "full"):
        with accelerate(policy, schedule, runtime, horizon=horizon) as fast:
            actions[horizon] = act(fast, batch=3)
    assert error(actions["executed"], actions["full"]) < TOLERANCE
    assert fast.report().schedule == "custom, extrapolated reuse"
    assert copy.deepcopy(fast.sampler).schedule == schedule


# ---- where it is refused ---------------------------------------------------------------------------------------------


@every_runtime
@pytest.mark.parametrize("name", ["ddpm", "ddim stochastic", "ancestral grid"])
def test_samplers_that_add_noise_are_refused(runtime, name):
    base = tiny_sampler(tiny_model(), "ddpm" if name == "ancestral grid" else name)
    if name == "ancestral grid":
        base = GridLoop(base, GridSettings("ancestral", tuple(range(99, 0, -10)), coupled=False))
    schedule = random_schedule(base.model, 10, 0.4, 0)
    with pytest.raises(ScheduleError, match='adds noise .*DDIM with eta 0.*reuse="hold"'):
        make_sampler(base, extrapolating(schedule), runtime)
    make_sampler(base, schedule, runtime)


def test_samplers_that_may_add_noise_are_refused():
    base = tiny_sampler(tiny_model(), "ddim")
    base.scheduler.register_to_config(thresholding=True)
    schedule = random_schedule(base.model, 10, 0.4, 0)
    with pytest.raises(ScheduleError, match="may add noise"):
        ReferenceSampler(base, extrapolating(schedule))
    ReferenceSampler(base, schedule)


# ---- the schedule ----------------------------------------------------------------------------------------------------


def test_a_schedule_says_how_it_reuses(tmp_path):
    held = Schedule.from_steps({name: [0, 3] for name in decoder_blocks(1)}, 5)
    ahead = extrapolating(held)
    assert held != ahead and hash(held) != hash(ahead) and held.digest != ahead.digest
    assert "extrapolated reuse" in str(ahead) and "extrapolated reuse" in repr(ahead)
    assert "reuse" not in str(held) and "reuse" not in repr(held)
    assert ahead.with_refresh([2]).reuse == "extrapolate"
    for copied in (copy.deepcopy(ahead), pickle.loads(pickle.dumps(ahead))):
        assert copied == ahead
    ahead.save(tmp_path / "ahead.json")
    assert Schedule.load(tmp_path / "ahead.json") == ahead
    held.save(tmp_path / "held.json")
    assert "reuse" not in json.loads((tmp_path / "held.json").read_text())
    assert Schedule.load(tmp_path / "held.json").reuse == "hold"


def test_digests_of_holding_schedules_are_what_they_were():
    held = Schedule.from_steps({name: [0, 3] for name in decoder_blocks(1)}, 5)
    assert held.digest == "dd1f248d294605ef3b97cfb988f71a05aecd6e89f18c7ee513b2d0d895ef4abb"


@pytest.mark.parametrize("reuse", ["linear", "", None, 1, ["hold"]])
def test_unknown_reuse_is_refused(reuse, tmp_path):
    with pytest.raises(ScheduleError, match="reuse must be hold or extrapolate"):
        Schedule.from_steps({name: [0] for name in decoder_blocks(1)}, 5, reuse=reuse)
    path = tmp_path / "schedule.json"
    Schedule.from_steps({name: [0] for name in decoder_blocks(1)}, 5, reuse="extrapolate").save(path)
    path.write_text(path.read_text().replace('"extrapolate"', json.dumps(reuse)))
    with pytest.raises(ScheduleError, match="reuse must be hold or extrapolate"):
        Schedule.load(path)


def test_its_arithmetic_is_that_of_holding():
    model = tiny_model()
    schedule = random_schedule(model, 10, 0.4, 0)
    assert denoiser_cost(model).flops(extrapolating(schedule)) == denoiser_cost(model).flops(schedule)
