"""bac calibrate: from a command line to a stored grid, and to the line that uses it."""

from __future__ import annotations

import json
import shlex

import pytest

from bac_workbench.profiling.calibration import as_overrides, calibrate_sampler
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError

pytest.importorskip("pymunk")


@pytest.fixture
def experiment(make_cfg):
    def make(*overrides):
        usual = ["sampler=ancestral5", "sampler.steps=2", "task.environment.max_steps=24"]
        cfg = make_cfg(*usual, *overrides, script="calibrate")
        return load_experiment(check(cfg, "calibrate", [*usual, *overrides]))

    return make


def test_a_calibration_is_stored_and_its_line_gives_the_sampler(experiment, tmp_path):
    made, said = experiment(), []
    found, path = calibrate_sampler(made, said.append)
    stored = json.loads(path.read_text())
    assert path.parent == tmp_path / "assets" / "pusht_lowdim" / "samplers"
    assert stored["checkpoint_hash"] == made.loaded.hash and stored["sampler"] == "ancestral2"
    assert (stored["states"], stored["held_out_states"], stored["seeds"]) == (2, 2, [0])
    assert stored["states_from"].endswith("seeds 20000..20001")
    assert stored["error_after"] <= stored["error_before"] and len(said) == len(found.trace)
    options = dict(word.removeprefix("sampler.").split("=") for word in shlex.split(as_overrides(found)))
    chosen = {"type": options["type"], "timesteps": json.loads(options["timesteps"])}
    again = made.with_sampler(chosen)
    assert again.sampler.settings == found.settings and again.sampler_name == stored["calibrated"]


def test_what_is_stored_is_replaced_only_if_asked_for(experiment):
    calibrate_sampler(experiment(), str)
    with pytest.raises(ConfigError, match="overwrite=true replaces it"):
        calibrate_sampler(experiment(), str)
    calibrate_sampler(experiment("overwrite=true"), str)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sampler=checkpoint"], "use sampler=ancestral5"),
        (["sampler=ddim10", "sampler.steps=10"], "spaced by diffusers"),
        (["sampler.timesteps=[1,2]"], "do not descend"),
        (["profile.n_observations=0"], "n_observations=0"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(experiment, overrides, message):
    with pytest.raises(ConfigError, match=message):
        calibrate_sampler(experiment(*overrides), str)
