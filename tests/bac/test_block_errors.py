"""Errors of block outputs under caching, against the uncached chain."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bac.block_errors import block_errors
from bac.denoiser import model_blocks
from bac.profiling import profile_features
from bac.schedule import Schedule, ScheduleError
from bac.uniform import uniform
from tests.bac.tiny_policies import observation, random_schedule, tiny_policy

STEPS, SEEDS = 8, (0, 1)


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(steps=STEPS)


@pytest.fixture(scope="module")
def blocks(policy):
    return model_blocks(policy.model)


def measured(policy, schedules, batch_size=2, **options):
    inputs = policy.sampler_inputs(observation(3))
    return block_errors(
        policy.sampler, schedules, inputs, SEEDS, policy.chunk, policy.action_dim, batch_size, **options
    )


def skipping(blocks, *cells):
    """All blocks update at all steps, but for these (step, block)."""
    updates = np.ones((STEPS, len(blocks)), bool)
    for step, block in cells:
        updates[step, blocks.index(block)] = False
    return Schedule(updates, blocks)


def test_without_reuse_there_is_no_error(policy, blocks):
    found = measured(policy, {"full": Schedule.full(blocks, STEPS)})
    assert found.blocks == blocks and found.errors["full"].shape == (STEPS, len(blocks))
    assert not found.errors["full"].any() and found.action_errors["full"] == 0.0
    assert (found.sizes > 0).all()


def test_a_chain_is_exact_until_its_first_reuse_and_then_no_more(policy, blocks):
    first = 3
    schedule = skipping(blocks, *((step, block) for step in range(first, STEPS) for block in blocks))
    errors = measured(policy, {"held": schedule}).errors["held"]
    assert not errors[:first].any() and (errors[first:] > 0).all()
    assert not measured(policy, {"uniform": uniform(blocks, STEPS, 4)}).errors["uniform"][0].any()


def test_the_first_held_output_is_off_by_what_the_profile_says(policy, blocks):
    inputs = policy.sampler_inputs(observation(3))
    l1 = profile_features(policy.sampler, inputs, SEEDS, 2)["l1"]
    schedules = {block: skipping(blocks, (4, block)) for block in blocks}
    errors = measured(policy, schedules).errors
    for place, block in enumerate(blocks):
        assert errors[block][4, place] == pytest.approx(l1[block][3, 4], rel=1e-5)
        assert not errors[block][4, :place].any()  # blocks before it see nothing of it at this step


def test_every_cache_is_measured_as_if_it_were_alone_and_in_any_batch(policy, blocks):
    schedules = {"uniform": uniform(blocks, STEPS, 2), "random": random_schedule(policy.model, STEPS, 0.4, 0)}
    calls: list[tuple[int, int]] = []
    both = measured(policy, schedules, progress=lambda done, total: calls.append((done, total)))
    for name, schedule in schedules.items():
        alone = measured(policy, {name: schedule}, batch_size=3)
        np.testing.assert_allclose(both.errors[name], alone.errors[name], rtol=1e-4, atol=1e-6)
        assert both.action_errors[name] == pytest.approx(alone.action_errors[name], rel=1e-4)
    assert calls == [(2, 6), (3, 6), (5, 6), (6, 6)]


def test_what_cannot_be_measured_is_refused(policy, blocks):
    extrapolating = dataclasses.replace(Schedule.full(blocks, STEPS), reuse="extrapolate")
    with pytest.raises(ScheduleError, match="line has extrapolated ones"):
        measured(policy, {"line": extrapolating})
    with pytest.raises(ScheduleError, match="another model|denoising steps"):
        measured(policy, {"long": Schedule.full(blocks, STEPS + 1)})
    inputs = policy.sampler_inputs(observation(1))
    with pytest.raises(ValueError, match="one noise seed at least"):
        block_errors(policy.sampler, {}, inputs, (), policy.chunk)
