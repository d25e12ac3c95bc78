"""Times of one update, from runs in which one kind of block is held."""

import numpy as np
import pytest
import torch

from bac.block_times import block_times
from bac.blocks import parse
from bac.denoiser import model_blocks
from bac.errors import Unavailable
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import tiny_model, tiny_sampler

NANOSECONDS = {"sa": 3_000, "ca": 1_000, "ffn": 7_000}
PER_STEP = 2_500


def slow_machine(monkeypatch, noise=0.0):
    """make(schedule) -> a sampler that takes as long as its updates, on a clock of its own that may run unevenly."""
    clock, random = [0.0], np.random.default_rng(0)
    monkeypatch.setattr("bac.block_times.time.perf_counter", lambda: clock[0])

    def make(schedule):
        updates = sum(NANOSECONDS[parse(name).kind] * count for name, count in schedule.updates_per_block.items())

        def sampler(inputs, generator):
            clock[0] += (updates + PER_STEP * schedule.steps) * (1 + noise * random.random()) / 1e9

        return sampler

    return make


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_prices_are_those_of_the_machine(monkeypatch, noise):
    loop = tiny_sampler(tiny_model(), "ddpm", 10)
    times = block_times(loop, SamplerInputs(torch.zeros(1, 6, 2)), slow_machine(monkeypatch, noise), rounds=40)
    assert tuple(times.blocks) == model_blocks(loop.model)
    for name, nanoseconds in times.blocks.items():
        assert nanoseconds == pytest.approx(NANOSECONDS[parse(name).kind], abs=1 + 15_000 * noise)
    total = 10 * (sum(times.blocks.values()) + times.per_step)
    assert total == pytest.approx(10 * (2 * sum(NANOSECONDS.values()) + PER_STEP), rel=1e-3 + noise)


def test_one_step_reuses_nothing():
    with pytest.raises(Unavailable, match="take more steps"):
        block_times(tiny_sampler(tiny_model(), "ddpm", 1), SamplerInputs(torch.zeros(1, 6, 2)), None)
