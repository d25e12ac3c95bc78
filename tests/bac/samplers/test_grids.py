"""Spacing rules: strictly descending timesteps, those of diffusers where they have its names."""

from __future__ import annotations

import pytest
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from bac.samplers.grids import (
    OF_DIFFUSERS,
    SPACINGS,
    ImpossibleGrid,
    check_grid,
    default_spacing,
    leading,
    spacing_of,
    timesteps_of,
)
from diffusion_policy.policy.schedulers import prepared

sizes = st.integers(1, 300).flatmap(lambda trained: st.tuples(st.just(trained), st.integers(1, trained)))


@given(sizes, st.sampled_from(SPACINGS))
def test_a_grid_descends_within_training_or_is_refused_with_what_is_possible(size, spacing):
    trained, steps = size
    try:
        grid = timesteps_of(spacing, steps, trained)
    except ImpossibleGrid as error:
        possible = int(str(error).split("use ")[1].split(" steps")[0])
        assert possible < steps and len(timesteps_of(spacing, possible, trained)) == possible
        assert spacing in ("quadratic", "three_halves") and len(timesteps_of("even", steps, trained)) == steps
    else:
        assert len(grid) == steps
        check_grid(grid, trained)


@given(sizes)
def test_even_is_every_timestep_where_there_are_as_many_and_symmetric_else(size):
    trained, steps = size
    assert timesteps_of("even", trained, trained) == tuple(range(trained - 1, -1, -1))
    grid = timesteps_of("even", steps, trained)
    assert abs((trained - 1 - grid[0]) - grid[-1]) <= 1
    gaps = {a - b for a, b in zip(grid, grid[1:])}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_measured_shapes_on_a_hundred_timesteps():
    assert timesteps_of("quadratic", 3, 100) == (92, 26, 4)
    assert timesteps_of("quadratic", 1, 100) == (58,)
    ten = timesteps_of("three_halves", 10, 100)
    assert (ten[0], ten[-1]) == (94, 3)
    assert timesteps_of("quadratic", 5, 1000)[::4] == (920, 40)  # constants scale with training


@pytest.mark.parametrize("cls", [DDPMScheduler, DDIMScheduler])
@given(sizes, st.sampled_from(OF_DIFFUSERS))
def test_those_of_diffusers_are_diffusers_own(cls, size, spacing):
    trained, steps = size
    scheduler = prepared(cls(num_train_timesteps=trained, timestep_spacing=spacing), steps)
    assert tuple(scheduler.timesteps.tolist()) == timesteps_of(spacing, steps, trained)


@given(st.integers(2, 300), st.integers(1, 30), st.integers(0, 20))
def test_leading_with_an_offset_is_diffusers_own(trained, steps, offset):
    scheduler = DDPMScheduler(num_train_timesteps=trained, steps_offset=offset, timestep_spacing="leading")
    steps = min(steps, trained)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == leading(steps, trained, offset).tolist()


@given(sizes, st.sampled_from(("ancestral", "ddim", "dpmpp")))
def test_the_default_is_always_possible_and_recognised(size, kind):
    trained, steps = size
    spacing = default_spacing(kind, steps, trained)
    grid = timesteps_of(spacing, steps, trained)
    assert spacing_of(grid, kind, trained) in (spacing, *(SPACINGS if kind == "dpmpp" else ()), None)
    if kind != "dpmpp":
        assert spacing_of(grid, kind, trained) == spacing


def test_defaults_by_kind_and_number_of_steps():
    names = [default_spacing("ancestral", steps, 100) for steps in (3, 6, 7, 16, 60, 100)]
    assert names == ["quadratic", "quadratic", "three_halves", "three_halves", "even", "even"]
    assert [default_spacing("ddim", steps, 100) for steps in (3, 9, 10)] == ["quadratic", "three_halves", "leading"]
    assert default_spacing("dpmpp", 5, 100) == "leading"


@pytest.mark.parametrize(
    "timesteps, message",
    [
        ([], "no grid"),
        ([5, 5], "do not descend"),
        ([3, 5], "do not descend"),
        ([100, 5], "use 0 to 99"),
        ([5, -1], "use 0 to 99"),
        ([5.0, 1], "whole numbers"),
    ],
)
def test_what_is_no_grid_is_refused(timesteps, message):
    with pytest.raises(ImpossibleGrid, match=message):
        check_grid(timesteps, 100)


def test_unknown_rules_and_impossible_numbers_are_refused():
    with pytest.raises(ImpossibleGrid, match="unknown: use quadratic"):
        timesteps_of("cubic", 3, 100)
    for steps in (0, 101):
        with pytest.raises(ImpossibleGrid, match="use 1 to 100"):
            timesteps_of("even", steps, 100)
