"""What a check says of numbers, and which settings it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bac.distances import screen
from bac_workbench.checking.measure import FULL, OTHER_NOISE, Measured
from bac_workbench.checking.numbers import differences, missed, percentiles
from bac_workbench.checking.report import finite
from bac_workbench.checking.verdict import check_bounds, level, limits_of, sentences
from bac_workbench.settings import check
from bac_workbench.settings.checking import Limits
from bac_workbench.settings.recordings import with_task
from bac_workbench.timing.latency import Latency
from diffusion_policy.common.config import ConfigError
from tests.experiments.composed_settings import composed

STATES, SAMPLES, STEPS, DIMS = 12, 6, 8, 3
SCALE = np.array([1.0, 10.0, 0.1])


def full_policy(seed: int = 0) -> np.ndarray:
    """Normalised chunks [N, S, L, D] that spread between seeds."""
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(9).uniform(-0.5, 0.5, (STATES, 1, 1, DIMS))
    return centre + 0.1 * rng.normal(size=(STATES, SAMPLES, STEPS, DIMS))


def measured(method: np.ndarray, limits: dict | None = None, deadline_ms: float | None = None) -> Measured:
    full = full_policy()
    settings = SimpleNamespace(
        limits=Limits(**(limits or {})), deadline_ms=deadline_ms, n_samples=SAMPLES, runtime="planned"
    )
    subject = SimpleNamespace(name="bac_s10", experiment=SimpleNamespace(settings=settings))
    latencies = {
        FULL: Latency((40.0, 42.0, 44.0, 60.0), (5.0,) * 4, 1, 8),
        "bac_s10": Latency((10.0, 11.0, 12.0, 30.0), (5.0,) * 4, 1, 8),
    }
    chunks = {"bac_s10": method, OTHER_NOISE: full_policy(1)}
    return Measured(
        subject=subject,
        latencies=latencies,
        screens={name: screen(chunk, full) for name, chunk in chunks.items()},
        differences=differences(method * SCALE, full * SCALE, SCALE),
        ddim=None,
        n_states=STATES,
        available=50,
        notes=[],
    )


def test_errors_are_in_the_units_of_each_dimension():
    found = differences((full_policy() + 0.02) * SCALE, full_policy() * SCALE, SCALE)
    assert np.allclose(found.errors, 0.02 * SCALE) and np.allclose(found.bias, 0.02 * SCALE)
    assert np.allclose(found.bias_low, found.bias_high)
    assert found.error.shape == (STEPS, DIMS)


def test_another_draw_of_the_policy_has_a_ratio_of_one():
    found = differences(full_policy(1) * SCALE, full_policy() * SCALE, SCALE)
    assert np.allclose(found.ratios, 1, atol=0.1)
    assert (np.abs(found.bias) < 3 * (found.bias_high - found.bias_low)).all()


def test_a_dimension_without_spread_counts_errors_in_shares_of_its_range():
    full = full_policy()
    full[..., 1] = 0.3
    method = full.copy()
    method[..., 1] += 0.05
    assert differences(method * SCALE, full * SCALE, SCALE).ratios.tolist() == pytest.approx([0, 10, 0])
    assert differences(full * SCALE, full * SCALE, SCALE).ratios.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda x: x, "same"),
        (lambda x: x + 0.01 * np.random.default_rng(3).normal(size=x.shape), "close"),
        (lambda x: full_policy(1), "close"),
        (lambda x: x + 0.6, "far"),
        (lambda x: np.concatenate([x[..., :2], 0.15 + 1.2 * x[..., 2:]], -1), "unclear"),
    ],
)
def test_levels(change, expected):
    found = measured(change(full_policy()))
    assert level(found) == expected
    said = " ".join(sentences(found, []))
    assert "no proof" in said and "No limits were stated" in said


def test_a_limit_breaks_where_it_is_exceeded_and_nowhere_else():
    method = full_policy() + 0.02
    allowed = (0.03 * SCALE).tolist()
    kept = {"error": allowed, "bias": allowed, "energy": 0.5, "jitter": 1.5, "error_ratio": 1.0, "p99_ms": 50.0}
    assert not any(limit.broken for limit in limits_of(measured(method, kept)))
    strict = {"error": [0.03, 0.1, 0.003], "p99_ms": 20.0}
    broken = {limit.name: limit for limit in limits_of(measured(method, strict)) if limit.broken}
    assert set(broken) == {"error", "p99_ms"} and broken["error"].dimension == 1
    found = limits_of(measured(method, {"missed": 0.2}, deadline_ms=20.0))
    assert [limit.broken for limit in found] == [True] and found[0].value == 0.25
    assert "exceeded" in " ".join(sentences(measured(method, strict), limits_of(measured(method, strict))))


def test_a_number_that_is_none_exceeds_every_limit():
    from bac_workbench.checking.verdict import Limit

    assert Limit("jitter", float("nan"), 1.0).broken and Limit("jitter", float("inf"), 1.0).broken
    assert finite({"a": [float("inf"), 1.0], "b": (float("nan"),)}) == {"a": [None, 1.0], "b": [None]}


def test_times():
    times = np.arange(1, 101)
    assert missed(times, 90) == 0.1 and missed(times, 100) == 0 and missed(times, 0.5) == 1
    assert list(percentiles(times).values()) == sorted(percentiles(times).values())


def test_limits_of_dimensions_that_are_not_there_are_refused():
    check_bounds(Limits(error=[1.0, 1.0]), 2)
    with pytest.raises(ConfigError, match="limits.bias has 1 numbers, and the action has 2 dimensions"):
        check_bounds(Limits(error=0.5, bias=[1.0]), 2)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["observations=null"], "name recorded observations"),
        (["limits.missed=0.1"], "add deadline_ms="),
        (["cache=bac", "schedule=a.json"], "leave cache= out"),
        (["limits.error=0"], "a number above 0"),
        (["limits.error=[1,-1]"], "a number above 0"),
        (["limits.energy=-1"], "above 0"),
        (["held_out=1.5"], "at most 1"),
        (["output=elsewhere"], "it is for a policy without task="),
        (["observations_map=[a]"], "names by names"),
        (["profile.n_episodes=3", "task.environment=null"], "it is of rollouts"),
    ],
)
def test_wrong_settings_are_refused(overrides, message):
    given = ["observations=data.hdf5", *overrides]
    with pytest.raises(ConfigError, match=message):
        check(composed("check", *given), "check", given)


def test_a_command_line_without_a_task_gets_one_and_others_stay():
    assert with_task(["task=can_ph", "checkpoint=a"], "profile_blocks") == ["task=can_ph", "checkpoint=a"]
    assert with_task(["observations=a"], "profile_blocks") == ["observations=a"]
    assert with_task(["checkpoint=a"], "train") == ["checkpoint=a"]
    made = with_task(["checkpoint=a", "output=runs/my peg/"], "check")
    assert made == [
        "task=base/recordings",
        'task.name="my peg"',
        'assets_dir="runs"',
        "checkpoint=a",
        "output=runs/my peg/",
    ]
