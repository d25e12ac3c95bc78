"""Distances between the chunks of a candidate and of the full policy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import energy_distance

from bac.distances import CAP, DistanceError, energy_distances, sample_chunks, screen
from bac.runtime.choose import make_sampler
from bac.runtime.planned import PlannedSampler
from tests.bac.tiny_policies import observation, random_schedule, tiny_policy

BETWEEN_LAWS = ("relative_energy", "mmd2", "jitter_ratio")
SAME_NOISE = ("median_error", "p95_error", "capped_rms_error", "bias")


def chunks(seed, states=6, samples=8, spread=0.2, shape=(5, 2)):
    """Smooth chunks around another mean in every state."""
    rng = np.random.default_rng(seed)
    means = np.cumsum(0.1 * np.random.default_rng(99).normal(size=(states, 1, *shape)), axis=2)
    return means + spread * rng.normal(size=(states, samples, 1, shape[1])) * np.linspace(0.5, 1, shape[0])[:, None]


def test_identical_chunks_are_at_distance_zero():
    same = screen(chunks(0), chunks(0))
    assert (same.relative_energy.value, same.mmd2.value, same.jitter_ratio.value) == (0.0, 0.0, 1.0)
    for name in SAME_NOISE:
        measure = getattr(same, name)
        assert (measure.value, measure.low, measure.high) == (0.0, 0.0, 0.0)


def test_equal_laws_are_at_distance_zero_up_to_chance_and_other_laws_are_not():
    full = chunks(0, samples=40)
    other_seeds, shifted = screen(chunks(1, samples=40), full), screen(chunks(1, samples=40) + 0.3, full)
    assert abs(other_seeds.relative_energy.value) < 0.1 < 0.5 < shifted.relative_energy.low
    assert abs(other_seeds.mmd2.value) < 0.03 < 0.2 < shifted.mmd2.low
    assert other_seeds.median_error.value > 0.05  # the noise is another one
    assert shifted.bias.value == pytest.approx(0.3, abs=0.1) and shifted.capped_rms_error.value <= CAP


@pytest.mark.parametrize("name", [*BETWEEN_LAWS, *SAME_NOISE])
def test_the_order_of_seeds_and_of_states_means_nothing(name):
    candidate, full = chunks(1), chunks(0)
    expected = getattr(screen(candidate, full), name).value
    states, seeds = np.random.default_rng(2).permutation(6), np.random.default_rng(3).permutation(8)
    found = getattr(screen(candidate[states][:, seeds], full[states][:, seeds]), name).value
    assert found == pytest.approx(expected)


def test_units_cancel_between_laws():
    candidate, full = chunks(1) + 0.1, chunks(0)
    one, ten = screen(candidate, full), screen(10 * candidate, 10 * full)
    for name in BETWEEN_LAWS:
        assert getattr(ten, name).value == pytest.approx(getattr(one, name).value)
    assert ten.median_error.value == pytest.approx(10 * one.median_error.value)


def test_energy_distance_is_that_of_scipy_on_numbers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 1, 400), rng.normal(0, 1, 400)
    found, spread = energy_distances(x.reshape(1, -1, 1, 1), y.reshape(1, -1, 1, 1))
    # scipy's takes equal samples in, and is a root of half of it
    assert found[0] == pytest.approx(energy_distance(x, y) ** 2, abs=0.02)
    assert spread[0] == pytest.approx(2 / np.sqrt(np.pi), rel=0.1)


def test_jitter_and_jumps_are_those_along_the_chunk_and_between_chunks():
    full = chunks(0)
    shaking = full + 0.05 * np.array([1, -1, 1, -1, 1])[:, None]
    assert screen(shaking, full).jitter_ratio.value > 1.5
    assert screen(full + 0.3, full).jitter_ratio.value == pytest.approx(1.0)
    before = [-1, 0, 1, 2, -1, 4]
    assert screen(full, full, before).jump_ratio.value == 1.0
    wavering = full + 0.5 * np.array([1, -1, 1, -1, 1, -1])[:, None, None, None]
    assert screen(wavering, full, before).jump_ratio.value > 1.5
    assert screen(full, full).jump_ratio is None and screen(full, full, [-1] * 6).jump_ratio is None


def test_rounding_is_no_distance_for_a_policy_without_spread():
    full = np.repeat(chunks(0)[:, :1], 8, axis=1)
    rounded = screen(full + 1e-6 * np.random.default_rng(0).normal(size=full.shape), full)
    assert abs(rounded.relative_energy.value) < 1e-3 and abs(rounded.mmd2.value) < 1e-3


def test_intervals_hold_the_value_and_shrink_with_states():
    few, many = screen(chunks(1), chunks(0)), screen(chunks(1, states=60), chunks(0, states=60))
    for result in (few, many):
        for name in (*BETWEEN_LAWS, *SAME_NOISE):
            measure = getattr(result, name)
            assert measure.low <= measure.value <= measure.high
    assert many.median_error.high - many.median_error.low < 0.6 * (few.median_error.high - few.median_error.low)
    assert json.loads(json.dumps(few.to_dict()))["states"] == 6


@pytest.mark.parametrize(
    ("candidate", "full", "message"),
    [
        (chunks(0)[:, :4], chunks(0), "of one shape"),
        (chunks(0)[0], chunks(0)[0], "of one shape"),
        (chunks(0)[:1], chunks(0)[:1], "at least two states"),
        (chunks(0)[:, :1], chunks(0)[:, :1], "at least two states and two noise seeds"),
        (chunks(0) * np.nan, chunks(0), "candidate contain NaN"),
    ],
)
def test_what_cannot_be_compared_is_an_error(candidate, full, message):
    with pytest.raises(DistanceError, match=message):
        screen(candidate, full)
    with pytest.raises(DistanceError, match="before must name a state"):
        screen(chunks(0), chunks(0), [0, 1])


def test_samples_are_paired_whatever_the_sampler_and_the_batch():
    policy = tiny_policy()
    inputs = policy.sampler_inputs(observation(5))
    full = sample_chunks(policy.sampler, policy, inputs, [0, 1, 2])
    assert full.shape == (5, 3, 4, 2)
    planned = sample_chunks(make_sampler(policy.sampler, None, "planned"), policy, inputs, [0, 1, 2], batch_size=2)
    assert planned == pytest.approx(full, abs=1e-5)
    assert sample_chunks(policy.sampler, policy, inputs, [1])[:, 0] == pytest.approx(full[:, 1], abs=1e-6)
    assert np.abs(full[:, 0] - full[:, 1]).mean() > 0.1
    cached = PlannedSampler(policy.sampler, random_schedule(policy.model, 10, 0.3, seed=0))
    found = screen(sample_chunks(cached, policy, inputs, [0, 1, 2]), full)
    assert found.median_error.value > 0 and (found.states, found.samples) == (5, 3)


def test_no_seeds_and_too_short_trajectories_are_errors():
    policy = tiny_policy()
    inputs = policy.sampler_inputs(observation(2))
    with pytest.raises(DistanceError, match="no noise seeds"):
        sample_chunks(policy.sampler, policy, inputs, [])
    with pytest.raises(DistanceError, match="gives 3 tokens, the executed chunk ends at token 5"):
        sample_chunks(lambda batch, generator: torch.zeros(len(batch), 3, 2), policy, inputs, [0])
