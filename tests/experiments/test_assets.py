"""Profiles and schedules on disk: found by what they are of, measured once, never replaced unasked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bac.schedule import Schedule, ScheduleError
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.profile_settings import THOROUGH, ProfileSettings, of_schedule, read_info, same_origin
from bac_workbench.profiling.profiles import profile_for, replace_profile
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.common.lock import LockedError, locked
from diffusion_policy.dataset.sequence_dataset import SequenceDataset
from tests.conftest import ROOT

pytest.importorskip("pymunk")
USUAL_SETTINGS = ["profile.n_episodes=null", "profile.n_observations=null", "profile.noise_seeds=null"]
BAC = ["cache=bac", "cache.budget=3", "cache.top_k=2"]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def schedule(cfg, said=None):
    return schedule_for(load_experiment(cfg), cfg.cache, (said if said is not None else []).append)


@pytest.fixture
def stored(make_cfg, tmp_path):
    """The assets folder with a profile of two observations of DDPM-8 and a schedule of it."""
    schedule(make_cfg(*BAC))
    return tmp_path / "assets"


def test_the_shipped_assets_are_what_the_usual_commands_find():
    register_resolvers()
    for overrides, name in (
        (["cache=bac"], "bac_s10"),
        (["cache=bac", "cache.budget=4", "sampler=ddim16"], "bac_s4"),
        (["cache=bac", "cache.budget=4", "sampler.type=ddim", "sampler.steps=16"], "bac_s4"),
    ):
        with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
            cfg = compose(
                "eval",
                [
                    "task=pusht_lowdim",
                    f"checkpoint={ROOT}/checkpoint/pusht_lowdim/ddpm100",
                    f"assets_dir={ROOT}/assets",
                    "device=cpu",
                    *overrides,
                ],
            )
        before, said = contents(ROOT / "assets"), []
        found = schedule(cfg, said)
        assert found.provenance.observations == 64 and len(said) == 1 and f"{name}.json" in said[0]
        assert contents(ROOT / "assets") == before


def test_every_shipped_schedule_is_what_its_name_says():
    for path in (ROOT / "assets").rglob("schedules/*.json"):
        origin = Schedule.load(path).provenance
        assert path.stem == f"{origin.method}_s{origin.budget}" and (origin.metric, origin.objective) == (
            "cosine",
            "cached_to_skipped",
        )
        info = read_info(path.parents[1])
        assert same_origin(of_schedule(Schedule.load(path)), info)


@pytest.mark.parametrize(
    "change",
    [
        ["sampler.type=ddim"],
        ["sampler.steps=5"],
        ["sampler.variance_type=fixed_large"],
        ["profile.n_observations=3"],
        ["profile.noise_seeds=[1]"],
        ["profile.seed_start=7"],
        USUAL_SETTINGS,
    ],
)
def test_other_samplers_and_settings_get_folders_of_their_own(make_cfg, stored, change):
    before, said = contents(stored), []
    small = ["profile.batch_size=16"] if change is USUAL_SETTINGS else []
    made = schedule(make_cfg(*BAC, *change, *small), said)
    after = contents(stored)
    assert before.items() <= after.items() and any("profiling now" in line for line in said)
    new = [name for name in after if name.endswith("profile.json") and name not in before]
    assert len(new) == 1
    said.clear()
    assert schedule(make_cfg(*BAC, *change, *small), said) == made  # and is found again
    assert contents(stored) == after and not any("profiling now" in line for line in said)
    if not change[0].startswith("sampler"):
        # 12 are all that four short rollouts give
        assert made.provenance.observations == {"profile.n_observations=3": 3}.get(
            change[0], 12 if change is USUAL_SETTINGS else 2
        )


def test_a_profile_of_few_observations_is_said_to_be_left_aside(make_cfg, stored):
    said = []
    schedule(make_cfg(*BAC, "profile.n_observations=3"), said)
    assert "was measured otherwise (n_observations 2 there, 3 asked for) and stays as it is" in said[0]


def test_more_observations_than_usual_are_taken_by_default(make_cfg, tmp_path):
    many = [
        "profile.n_episodes=4",
        "profile.n_observations=33",
        "profile.noise_seeds=[0,1,2]",
        "profile.batch_size=33",
        "sampler.steps=2",
        "task.environment.max_steps=80",
        "cache=bac",
        "cache.budget=1",
        "cache.top_k=1",
    ]
    schedule(make_cfg(*many))
    said = []
    found = schedule(make_cfg(*many, *USUAL_SETTINGS), said)
    assert found.provenance.observations == 33 and not any("profiling now" in line for line in said)


@pytest.mark.parametrize(
    "change",
    [
        {"budget": 2},
        {"top_k": 1},
        {"metric": "l1"},
        {"objective": "consecutive"},
        {"method": "blockwise_acs"},
        {"checkpoint_hash": "f" * 64},
        {"sampler": "ddim8"},
        {"observations": 64},
        {"seeds": [5]},
        {"repaired": ["decoder.layers.0.sa"]},
        {"forced_refresh": [7]},
    ],
)
def test_a_schedule_that_is_not_what_its_name_says_is_refused_and_kept(make_cfg, stored, change):
    path = next(stored.rglob("schedules/*.json"))
    content = json.loads(path.read_text())
    content["provenance"].update(change)
    path.write_text(json.dumps(content))
    before = contents(stored)
    with pytest.raises(
        ScheduleError, match="(not what its name says|not made from the profile beside it).*left as it is"
    ):
        schedule(make_cfg(*BAC))
    assert contents(stored) == before


def test_a_schedule_with_other_updates_than_it_says_is_refused(make_cfg, stored):
    path = next(stored.rglob("schedules/*.json"))
    content = json.loads(path.read_text())
    unrepaired = next(name for name in content["updates"] if name not in content["provenance"]["repaired"])
    content["updates"][unrepaired] = list(range(8))
    path.write_text(json.dumps(content))
    with pytest.raises(ScheduleError, match=f"8 updates of {unrepaired} instead of 3"):
        schedule(make_cfg(*BAC))


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
        (["profile.source=memory"], "auto, rollouts, dataset"),
        (["profile.source=dataset"], "are of rollouts"),
        (["cache.budget=99"], "use 1 to 8"),
        (["cache.budget=2.5"], "use 1 to 8"),
        (["cache.budget=null"], "use 1 to 8"),
        (["cache.forced_refresh=[8]"], "0 to 7"),
        (["cache.forced_refresh=[1,1]"], "each once"),
        (["cache.top_k=x"], "use 0 to 6"),
    ],
)
def test_settings_that_no_profile_or_schedule_can_have_never_reach_the_assets(make_cfg, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        schedule(make_cfg(*BAC, *settings))
    assert not (tmp_path / "assets").exists()


def test_pictures_that_are_missing_are_drawn(make_cfg, stored):
    folder = next(stored.rglob("profile.json")).parent
    figures = sorted((folder / "figures").iterdir())
    assert len(figures) == 3
    kept = figures[0].read_bytes()
    figures[1].unlink(), figures[2].unlink()
    profile_for(load_experiment(make_cfg()), lambda text: None)
    assert sorted((folder / "figures").iterdir()) == figures and figures[0].read_bytes() == kept


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"{", b'{"checkpoint_hash": 5}', b"\xff"])
def test_a_damaged_profile_is_named_with_the_repair(make_cfg, stored, damage):
    path = next(stored.rglob("profile.json"))
    path.write_bytes(damage)
    with pytest.raises(ConfigError, match="profile.json is damaged.*measured anew"):
        schedule(make_cfg("cache=bac", "cache.budget=2"))


def test_damaged_matrices_are_named_with_the_repair(make_cfg, stored):
    path = next(stored.rglob("profile.npz"))
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:100],
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="profile.npz is damaged"):
            schedule(make_cfg("cache=bac", "cache.budget=2"))
    path.unlink()
    with pytest.raises(ConfigError, match="is there but not"):
        schedule(make_cfg("cache=bac", "cache.budget=2"))


def test_overwriting_replaces_the_profile_with_its_schedules_and_nothing_else(make_cfg, stored):
    folder = next(stored.rglob("profile.json")).parent
    other = stored / "other_task" / "profile.json"
    other.parent.mkdir()
    other.write_text("{}")
    experiment = load_experiment(make_cfg("profile.n_observations=3"))
    profile, where = replace_profile(experiment, lambda text: None, THOROUGH)
    assert where == folder and profile.info.observations == 3 and other.exists()
    assert not list(folder.glob("schedules/*.json")) and len(list((folder / "figures").iterdir())) == 3


def test_two_processes_do_not_profile_into_one_folder(make_cfg, tmp_path):
    experiment = load_experiment(make_cfg())
    folder = Assets(experiment).writable()
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


def test_from_another_folder_the_shipped_assets_are_read_and_new_ones_written_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        cfg = compose("eval", ["task=pusht_lowdim", "device=cpu", "cache=bac", "cache.budget=5", "sampler=ddim16"])
    before, said = contents(ROOT / "assets"), []
    made = schedule(cfg, said)
    assert any(str(ROOT / "assets") in line for line in said) and not any("profiling now" in line for line in said)
    assert contents(ROOT / "assets") == before and made.provenance.observations == 64
    assert list(contents(tmp_path)) == ["assets/pusht_lowdim/ddim16/schedules/bac_s5.json"]
    said.clear()
    assert schedule(cfg, said) == made and len(said) == 1


# ---- a task without a simulator ----
def recorded_dataset():
    """A data set as a user writes one: any function that gives training and validation windows."""
    rng = np.random.default_rng(0)
    fields = {"obs": torch.tensor(rng.uniform(0, 512, (60, 20))), "action": torch.tensor(rng.uniform(0, 512, (60, 2)))}
    return SequenceDataset(fields, np.arange(16) + np.arange(40)[:, None]), None


def without_simulator(cfg, environment=None):
    OmegaConf.set_struct(cfg, False)
    cfg.task.environment = environment
    cfg.task.dataset = {"_target_": "tests.experiments.test_assets.recorded_dataset"}
    cfg.profile.n_episodes = None
    return cfg


@pytest.mark.parametrize("environment", [None, {"max_steps": 3}])
def test_a_task_without_a_simulator_is_profiled_on_its_data_set(make_cfg, environment):
    cfg = without_simulator(make_cfg(*BAC), environment)
    experiment = load_experiment(cfg, needs_simulator=False)
    profile, folder = profile_for(experiment, lambda text: None)
    assert profile.info.observations == 2 and profile.info.source == "windows of the task's data set, 40 in all"
    assert (
        schedule_for(experiment, cfg.cache, lambda text: None).provenance.extras["observations_from"]
        == profile.info.source
    )
    again, same = profile_for(experiment, lambda text: None)
    assert same == folder
    with pytest.raises(ConfigError, match="(?s)has no simulator.*profile_blocks.py"):
        load_experiment(cfg)


def test_a_data_set_can_be_asked_for_and_is_kept_apart_from_rollouts(make_cfg, stored):
    before = contents(stored)
    cfg = make_cfg(*BAC, "profile.source=dataset", "profile.n_episodes=null")
    OmegaConf.set_struct(cfg, False)
    cfg.task.dataset = {"_target_": "tests.experiments.test_assets.recorded_dataset"}
    made = schedule(cfg)
    assert made.provenance.extras["observations_from"].startswith("windows of the task's data set")
    assert before.items() <= contents(stored).items()


def test_rollouts_without_a_simulator_are_refused(make_cfg):
    cfg = without_simulator(make_cfg(*BAC, "profile.source=rollouts"))
    with pytest.raises(ConfigError, match="has no simulator"):
        profile_for(load_experiment(cfg, needs_simulator=False), lambda text: None)
    cfg = without_simulator(make_cfg(*BAC))
    cfg.profile.n_episodes = 2
    with pytest.raises(ConfigError, match="leave profile.n_episodes"):
        profile_for(load_experiment(cfg, needs_simulator=False), lambda text: None)


def test_a_data_set_that_is_not_the_policys_is_named(make_cfg):
    cfg = without_simulator(make_cfg(*BAC))
    cfg.task.dataset = None
    with pytest.raises(ConfigError, match="names no data set"):
        profile_for(load_experiment(cfg, needs_simulator=False), lambda text: None)


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


def test_the_same_weights_under_another_noise_schedule_have_a_profile_of_their_own(
    make_cfg, stored, checkpoint, tmp_path
):
    folder = tmp_path / "linear"
    folder.mkdir()
    (folder / "policy.safetensors").write_bytes((checkpoint / "policy.safetensors").read_bytes())
    text = (checkpoint / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("squaredcos_cap_v2", "linear"))
    assert text != (folder / "config.yaml").read_text()
    before, said = contents(stored), []
    made = schedule(make_cfg(*BAC, f"checkpoint={folder}"), said)
    assert (
        any("profiling now" in line for line in said)
        and "noise schedule" in made.provenance.extras["observations_from"]
    )
    assert before.items() <= contents(stored).items()
    said.clear()
    assert schedule(make_cfg(*BAC, f"checkpoint={folder}"), said) == made and len(said) == 1
    schedule(make_cfg(*BAC), said)
    assert not any("profiling now" in line for line in said)
