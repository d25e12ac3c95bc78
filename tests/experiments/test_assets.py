"""Profiles and schedules on disk: found by what they are of, measured once, never replaced unasked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from bac.schedule import Schedule, ScheduleError
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.profiling.identity import of_schedule, read_info, same_origin
from bac_workbench.profiling.sensitivity_identity import costs_of_schedule, stored_costs
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import register_resolvers
from tests.conftest import ROOT
from tests.experiments.conftest import made_once

pytest.importorskip("pymunk")
pytestmark = pytest.mark.usefixtures("quick_pictures")
USUAL_SETTINGS = ["profile.n_episodes=null", "profile.n_observations=null", "profile.noise_seeds=null"]
BAC = ["cache=bac", "cache.budget=3", "cache.top_k=2"]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def schedule(settings, lines=None):
    return schedule_for(load_experiment(settings), (lines if lines is not None else []).append)


@pytest.fixture
def stored(make_settings, tmp_path, first_assets, quick_pictures):
    """The assets folder with a profile of two observations of DDPM-8 and a schedule of it."""
    return made_once(first_assets, tmp_path / "assets", lambda: schedule(make_settings(*BAC)))


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
        settings = check(cfg, "eval", [])
        before, said = contents(ROOT / "assets"), []
        found = schedule(settings, said)
        assert found.provenance.observations == 64 and len(said) == 1 and f"{name}.json" in said[0]
        assert contents(ROOT / "assets") == before


def test_every_shipped_schedule_is_what_its_name_says():
    for path in (ROOT / "assets").rglob("schedules/*.json"):
        origin = Schedule.load(path).provenance
        if origin.method == "sacs":
            assert costs_of_schedule(Schedule.load(path)) == stored_costs(path.parents[1], "sensitivity")
            assert path.stem == f"sacs_s{origin.budget}" and Schedule.load(path).reuse == "hold"
            continue
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
def test_other_samplers_and_settings_get_folders_of_their_own(make_settings, stored, change):
    before, said = contents(stored), []
    small = ["profile.batch_size=16"] if change is USUAL_SETTINGS else []
    made = schedule(make_settings(*BAC, *change, *small), said)
    after = contents(stored)
    assert before.items() <= after.items() and any("profiling now" in line for line in said)
    new = [name for name in after if name.endswith("profile.json") and name not in before]
    assert len(new) == 1
    said.clear()
    assert schedule(make_settings(*BAC, *change, *small), said) == made  # and is found again
    assert contents(stored) == after and not any("profiling now" in line for line in said)
    if not change[0].startswith("sampler"):
        # 12 are all that four short rollouts give
        assert made.provenance.observations == {"profile.n_observations=3": 3}.get(
            change[0], 12 if change is USUAL_SETTINGS else 2
        )


def test_a_profile_of_few_observations_is_said_to_be_left_aside(make_settings, stored):
    said = []
    schedule(make_settings(*BAC, "profile.n_observations=3"), said)
    assert "was measured otherwise (n_observations 2 there, 3 asked for) and stays as it is" in said[0]


def test_more_observations_than_usual_are_taken_by_default(make_settings, tmp_path):
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
    schedule(make_settings(*many))
    said = []
    found = schedule(make_settings(*many, *USUAL_SETTINGS), said)
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
def test_a_schedule_that_is_not_what_its_name_says_is_refused_and_kept(make_settings, stored, change):
    path = next(stored.rglob("schedules/*.json"))
    content = json.loads(path.read_text())
    content["provenance"].update(change)
    path.write_text(json.dumps(content))
    before = contents(stored)
    with pytest.raises(
        ScheduleError, match="(not what its name says|not made from the profile beside it).*left as it is"
    ):
        schedule(make_settings(*BAC))
    assert contents(stored) == before


def test_a_schedule_with_other_updates_than_it_says_is_refused(make_settings, stored):
    path = next(stored.rglob("schedules/*.json"))
    content = json.loads(path.read_text())
    unrepaired = next(name for name in content["updates"] if name not in content["provenance"]["repaired"])
    content["updates"][unrepaired] = list(range(8))
    path.write_text(json.dumps(content))
    with pytest.raises(ScheduleError, match=f"8 updates of {unrepaired} instead of 3"):
        schedule(make_settings(*BAC))


def test_from_another_folder_the_shipped_assets_are_read_and_new_ones_written_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        cfg = compose("eval", ["task=pusht_lowdim", "device=cpu", "cache=bac", "cache.budget=5", "sampler=ddim16"])
    settings = check(cfg, "eval", [])
    before, said = contents(ROOT / "assets"), []
    made = schedule(settings, said)
    assert any(str(ROOT / "assets") in line for line in said) and not any("profiling now" in line for line in said)
    assert contents(ROOT / "assets") == before and made.provenance.observations == 64
    assert list(contents(tmp_path)) == ["assets/pusht_lowdim/ddim16/schedules/bac_s5.json"]
    said.clear()
    assert schedule(settings, said) == made and len(said) == 1


def test_the_same_weights_under_another_noise_schedule_have_a_profile_of_their_own(
    make_settings, stored, checkpoint, tmp_path
):
    folder = tmp_path / "linear"
    folder.mkdir()
    (folder / "policy.safetensors").write_bytes((checkpoint / "policy.safetensors").read_bytes())
    text = (checkpoint / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("squaredcos_cap_v2", "linear"))
    assert text != (folder / "config.yaml").read_text()
    before, said = contents(stored), []
    made = schedule(make_settings(*BAC, f"checkpoint={folder}"), said)
    assert (
        any("profiling now" in line for line in said)
        and "noise schedule" in made.provenance.extras["observations_from"]
    )
    assert before.items() <= contents(stored).items()
    said.clear()
    assert schedule(make_settings(*BAC, f"checkpoint={folder}"), said) == made and len(said) == 1
    schedule(make_settings(*BAC), said)
    assert not any("profiling now" in line for line in said)
