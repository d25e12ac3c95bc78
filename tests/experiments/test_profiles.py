"""Profiles: measured with what is asked for, on rollouts or a data set; damage is named."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from bac_workbench.caching.schedules import schedule_for
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.profiles import profile_for, replace_profile
from bac_workbench.profiling.request import THOROUGH, ProfileSettings
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import LockedError, locked
from diffusion_policy.dataset.sequence_dataset import SequenceDataset
from tests.conftest import ROOT
from tests.experiments.test_assets import BAC, contents, schedule

pytest.importorskip("pymunk")
pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture
def stored(make_settings, tmp_path):
    """The assets folder with a profile of two observations of DDPM-8 and a schedule of it."""
    schedule(make_settings(*BAC))
    return tmp_path / "assets"


@pytest.mark.parametrize(
    "settings, message",
    [
        (["profile.noise_seeds=[]"], "noise_seeds"),
        (["profile.noise_seeds=[0,0]"], "noise_seeds"),
        (["profile.noise_seeds=3"], "noise_seeds"),
        (["profile.batch_size=-1"], "batch_size=-1"),
        (["profile.batch_size=0"], "batch_size"),
        (["profile.n_observations=0"], "n_observations=0"),
        (["profile.n_episodes=0"], "n_episodes=0"),
        (["profile.seed_start=-5"], "seed_start"),
        (["profile.n_observations=2.5"], "n_observations"),
        (["profile.source=memory"], "auto, rollouts or dataset"),
        (["profile.source=dataset"], "are of rollouts"),
        (["cache.budget=99"], "use 1 to 8"),
        (["cache.budget=2.5"], "a whole number"),
        (["cache.budget=null"], "a whole number"),
        (["cache.forced_refresh=[8]"], "0 to 7"),
        (["cache.forced_refresh=[1,1]"], "without repeats"),
        (["cache.top_k=x"], "a whole number"),
    ],
)
def test_settings_that_no_profile_or_schedule_can_have_never_reach_the_assets(
    make_settings, tmp_path, settings, message
):
    with pytest.raises(ConfigError, match=message):
        schedule(make_settings(*BAC, *settings))
    assert not (tmp_path / "assets").exists()


def test_pictures_that_are_missing_are_drawn(make_settings, stored):
    folder = next(stored.rglob("profile.json")).parent
    figures = sorted((folder / "figures").iterdir())
    assert len(figures) == 3
    kept = figures[0].read_bytes()
    figures[1].unlink(), figures[2].unlink()
    profile_for(load_experiment(make_settings()), lambda text: None)
    assert sorted((folder / "figures").iterdir()) == figures and figures[0].read_bytes() == kept


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"{", b'{"checkpoint_hash": 5}', b"\xff"])
def test_a_damaged_profile_is_named_with_the_repair(make_settings, stored, damage):
    path = next(stored.rglob("profile.json"))
    path.write_bytes(damage)
    with pytest.raises(ConfigError, match="profile.json is damaged.*measured anew"):
        schedule(make_settings("cache=bac", "cache.budget=2"))


def test_damaged_matrices_are_named_with_the_repair(make_settings, stored):
    path = next(stored.rglob("profile.npz"))
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:100],
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="profile.npz is damaged"):
            schedule(make_settings("cache=bac", "cache.budget=2"))
    path.unlink()
    with pytest.raises(ConfigError, match="is there but not"):
        schedule(make_settings("cache=bac", "cache.budget=2"))


def test_overwriting_replaces_the_profile_with_its_schedules_and_nothing_else(make_settings, stored):
    folder = next(stored.rglob("profile.json")).parent
    other = stored / "other_task" / "profile.json"
    other.parent.mkdir()
    other.write_text("{}")
    experiment = load_experiment(make_settings("profile.n_observations=3"))
    profile, where = replace_profile(experiment, lambda text: None, THOROUGH)
    assert where == folder and profile.info.observations == 3 and other.exists()
    assert not list(folder.glob("schedules/*.json")) and len(list((folder / "figures").iterdir())) == 3


def test_two_processes_do_not_profile_into_one_folder(make_settings, tmp_path):
    experiment = load_experiment(make_settings())
    folder = Assets.of(experiment).writable()
    code = (
        "import sys; from pathlib import Path; from diffusion_policy.common.lock import locked\n"
        "with locked(Path(sys.argv[1]), 'profiling elsewhere'):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"profiling elsewhere, process {other.pid}.*since"):
            profile_for(experiment, lambda text: None)
        other.stdin.close()
    profile_for(experiment, lambda text: None)
    assert (folder / "profile.json").exists()


# ---- a task without a simulator ----
def recorded_dataset():
    """A data set as a user writes one: any function that gives training and validation windows."""
    rng = np.random.default_rng(0)
    fields = {"obs": torch.tensor(rng.uniform(0, 512, (60, 20))), "action": torch.tensor(rng.uniform(0, 512, (60, 2)))}
    return SequenceDataset(fields, np.arange(16) + np.arange(40)[:, None]), None


def with_dataset(cfg):
    OmegaConf.set_struct(cfg, False)
    cfg.task.dataset = {"_target_": "tests.experiments.test_profiles.recorded_dataset"}
    return check(cfg, "eval", [])


def without_simulator(cfg, environment=None):
    OmegaConf.set_struct(cfg, False)
    cfg.task.environment = environment
    cfg.profile.n_episodes = None
    return with_dataset(cfg)


@pytest.mark.parametrize("environment", [None, {"max_steps": 3}])
def test_a_task_without_a_simulator_is_profiled_on_its_data_set(make_cfg, environment):
    settings = without_simulator(make_cfg(*BAC), environment)
    experiment = load_experiment(settings, needs_simulator=False)
    profile, folder = profile_for(experiment, lambda text: None)
    assert profile.info.observations == 2 and profile.info.source == "windows of the task's data set, 40 in all"
    assert schedule_for(experiment, lambda text: None).provenance.extras["observations_from"] == profile.info.source
    again, same = profile_for(experiment, lambda text: None)
    assert same == folder
    with pytest.raises(ConfigError, match="(?s)has no simulator.*bac profile"):
        load_experiment(settings)


def test_a_data_set_can_be_asked_for_and_is_kept_apart_from_rollouts(make_cfg, stored):
    before = contents(stored)
    made = schedule(with_dataset(make_cfg(*BAC, "profile.source=dataset", "profile.n_episodes=null")))
    assert made.provenance.extras["observations_from"].startswith("windows of the task's data set")
    assert before.items() <= contents(stored).items()


def test_rollouts_without_a_simulator_are_refused(make_cfg):
    settings = without_simulator(make_cfg(*BAC, "profile.source=rollouts"))
    with pytest.raises(ConfigError, match="has no simulator"):
        profile_for(load_experiment(settings, needs_simulator=False), lambda text: None)
    settings = without_simulator(make_cfg(*BAC))
    settings = settings.replace(profile=settings.profile.replace(n_episodes=2))
    with pytest.raises(ConfigError, match="leave profile.n_episodes"):
        profile_for(load_experiment(settings, needs_simulator=False), lambda text: None)


def test_a_data_set_that_is_not_the_policys_is_named(make_cfg):
    settings = without_simulator(make_cfg(*BAC))
    settings = settings.replace(task=settings.task.replace(dataset=None))
    with pytest.raises(ConfigError, match="neither a simulator nor a data set"):
        profile_for(load_experiment(settings, needs_simulator=False), lambda text: None)


@pytest.mark.parametrize(
    "settings, name",
    [
        ({}, "usual"),
        ({"n_observations": 2, "noise_seeds": (0, 1)}, "observations2-noise0_1"),
        ({"source": "dataset"}, "dataset"),
        ({"n_episodes": 1, "seed_start": 5}, "episodes1-from5"),
    ],
)
def test_folders_of_settings(settings, name):
    assert ProfileSettings(**settings).folder == name
    long = ProfileSettings(noise_seeds=tuple(range(100))).folder
    assert len(long) < 30 and long != ProfileSettings(noise_seeds=tuple(range(101))).folder


def test_a_lock_is_gone_with_its_holder(tmp_path):
    with locked(tmp_path / "x", "something"):
        pass
    assert not list((tmp_path / "x").iterdir())
