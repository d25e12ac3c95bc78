"""Stored holding costs: what is read is what was written, and nothing else is taken for it."""

import json

import numpy as np
import pytest

from bac.blocks import decoder_blocks
from bac.profile_info import ProfileError, ProfileInfo
from bac.sensitivity import HoldingCosts
from bac.sensitivity_files import SensitivityInfo, load, read_info, save

ORIGIN = ProfileInfo("ab" * 32, "ema", "ddim5", 5, 16, (0,), "rollouts of the full policy from seeds 20000..20003")
INFO = SensitivityInfo(ORIGIN, 4, (1, 9))


@pytest.fixture(params=[True, False])
def costs(request):
    generator = np.random.default_rng(0)
    hold = np.triu(generator.random((3, 5, 5)), 1).astype(np.float32)
    extrapolate = generator.random((3, 5, 5, 5)).astype(np.float32) if request.param else None
    return HoldingCosts(decoder_blocks(1), hold, extrapolate)


def test_what_is_read_is_what_was_written(costs, tmp_path):
    assert read_info(tmp_path, "sensitivity") is None
    save(INFO, costs, tmp_path, "sensitivity")
    assert read_info(tmp_path, "sensitivity") == INFO
    info, again = load(tmp_path, "sensitivity")
    assert info == INFO and again.blocks == costs.blocks
    np.testing.assert_array_equal(again.hold, costs.hold)
    assert (again.extrapolate is None) == (costs.extrapolate is None)
    if costs.extrapolate is not None:
        np.testing.assert_array_equal(again.extrapolate, costs.extrapolate)


def described(folder, **changes):
    """Changes the description; what is None goes."""
    path = folder / "sensitivity.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"draws": None},
        {"draws": -1},
        {"draws": 1.5},
        {"chunk": [1]},
        {"chunk": "ab"},
        {"npz_sha256": None},
        {"npz_sha256": "0" * 64},
        {"blocks": ["decoder.layers.0.sa"]},
        {"blocks": ["decoder.layers.0.ca", "decoder.layers.0.sa", "decoder.layers.0.ffn"]},
        {"steps": 4},
        {"steps": 1999},
        {"note": "more"},
        {"weights": "best"},
    ],
)
def test_a_description_of_something_else_is_refused(costs, tmp_path, changes):
    save(INFO, costs, tmp_path, "sensitivity")
    described(tmp_path, **changes)
    with pytest.raises(ProfileError, match=r"sensitivity\.(json|npz).*restore both files"):
        load(tmp_path, "sensitivity")


def test_damaged_numbers_are_refused(costs, tmp_path):
    save(INFO, costs, tmp_path, "sensitivity")
    path = tmp_path / "sensitivity.npz"
    whole = path.read_bytes()
    for damaged in (whole[:-30], b"", whole[:60] + b"\0" + whole[61:]):
        path.write_bytes(damaged)
        with pytest.raises(ProfileError, match="not the one that sensitivity.json describes"):
            load(tmp_path, "sensitivity")
    path.unlink()
    with pytest.raises(ProfileError, match="has no sensitivity.npz beside it"):
        load(tmp_path, "sensitivity")


@pytest.mark.parametrize("entry", [float("nan"), -1.0])
def test_numbers_that_are_no_costs_are_refused(costs, tmp_path, entry):
    hold = costs.hold.copy()
    hold[0, 0, 1] = entry
    save(INFO, HoldingCosts(costs.blocks, hold, costs.extrapolate), tmp_path, "sensitivity")
    with pytest.raises(ProfileError, match="a number that is no cost"):
        load(tmp_path, "sensitivity")
