"""Calibrated grids: nearer to the full policy on states they were not fitted to."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bac.calibration import BEYOND, CalibrationError, GridErrors, calibrate, descend
from bac.distances import capped_rms_errors, sample_chunks
from bac.runtime.choose import make_sampler
from bac.samplers.coupling import noise_weights
from bac.samplers.grid_loop import GridLoop, GridSettings, UndefinedCoupling
from bac.samplers.grids import timesteps_of
from tests.bac.tiny_policies import observation, tiny_policy

POOR = GridSettings("ancestral", (99, 98, 97))
EVERY = GridSettings("ancestral", timesteps_of("even", 100, 100))


@pytest.fixture(scope="module")
def policy():
    return tiny_policy(steps=100)


def states(policy, count, seed=0):
    return policy.sampler_inputs(observation(count, seed))


def test_a_calibrated_grid_is_nearer_on_other_states(policy):
    accepted = []
    found = calibrate(
        policy, POOR, states(policy, 6), states(policy, 6, 50), progress=lambda *step: accepted.append(step)
    )
    assert found.error_after < found.error_before and found.held_out_after < found.held_out_before and found.better
    assert found.start == dataclasses.replace(POOR, coupled=True)
    assert found.settings == dataclasses.replace(found.start, timesteps=found.trace[-1][0])
    errors = [error for _, error in found.trace]
    assert errors == sorted(errors, reverse=True) and list(found.trace[1:]) == accepted
    assert found.tried >= len(found.trace) and (found.states, found.held_out_states) == (6, 6)
    stored = json.loads(json.dumps(found.to_dict()))
    assert GridSettings.from_dict(stored["settings"]) == found.settings and stored["error_after"] == found.error_after


def test_the_same_arguments_give_the_same_grid(policy):
    arguments = (policy, GridSettings("ddim", (80, 30)), states(policy, 3), states(policy, 3, 50))
    assert calibrate(*arguments) == calibrate(*arguments)


@pytest.mark.parametrize(
    "settings",
    [
        GridSettings("ancestral", (92, 54, 26)),
        GridSettings("ancestral", (92, 54, 26), coupled=False),
        GridSettings("ddim", (80, 30), eta=0.5, coupled=True),
        GridSettings("dpmpp", (90, 50, 10)),
    ],
    ids=["coupled", "uncoupled", "stochastic", "dpmpp"],
)
def test_errors_are_those_of_the_sampler_as_it_runs(policy, settings):
    """Whatever was tried before, and however it is batched."""
    inputs, seeds = states(policy, 5), [3, 4]
    errors = GridErrors(policy, settings, inputs, seeds, "planned", batch_size=2)
    for timesteps in ((99, *settings.timesteps[1:]), (*settings.timesteps[:-1], 1), settings.timesteps):
        candidate = make_sampler(
            GridLoop(policy.sampler, dataclasses.replace(settings, timesteps=timesteps)), None, "planned"
        )
        chunks = [sample_chunks(sampler, policy, inputs, seeds) for sampler in (candidate, policy.sampler)]
        assert errors(timesteps) == pytest.approx(capped_rms_errors(*chunks, beyond=BEYOND).mean(), abs=1e-6)
    assert errors.tried == 3


def test_all_timesteps_with_the_full_policys_noise_have_no_error(policy):
    errors = GridErrors(policy, EVERY, states(policy, 2), [0], "planned", 32)
    assert errors(EVERY.timesteps) < 1e-5


def test_an_inpainting_policy_is_calibrated_on_its_actions():
    policy = tiny_policy(steps=100, obs_as_cond=False)
    start = GridSettings("ancestral", (60, 50, 40))
    found = calibrate(policy, start, states(policy, 3), states(policy, 3, 50), seeds=(0,))
    assert found.error_after < found.error_before


def test_descent_finds_a_minimum_and_stays_a_grid():
    target = (90, 41, 12)
    trace = descend(lambda grid: 1 + sum((a - b) ** 2 for a, b in zip(grid, target)), (99, 98, 0), 100)
    assert trace[-1] == (target, 1)
    for grid, _ in trace:
        assert all(a > b for a, b in zip((100, *grid), (*grid, -1)))


def test_what_cannot_be_calibrated_is_an_error(policy):
    inputs = states(policy, 2)
    with pytest.raises(CalibrationError, match="needs states"):
        calibrate(policy, POOR, inputs, inputs, seeds=())
    fitted = GridSettings(
        "ancestral", (90, 10), noise_weights=noise_weights(np.array(policy.noise_scheduler.alphas_cumprod), (90, 10))
    )
    with pytest.raises(CalibrationError, match="calibrate without them"):
        calibrate(policy, fitted, inputs, inputs)
    with pytest.raises(UndefinedCoupling):
        calibrate(tiny_policy(steps=10), dataclasses.replace(POOR, coupled=True), inputs, inputs)
