"""Stored profiles: what they say of themselves, and how they are written."""

import copy
import io
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bac.profile_matrices import Profile, ProfileError
from tests.bac.example_profiles import BLOCKS, SETTINGS, info, matrices, matrix
from tests.bac.profile_archives import npy, rewrite

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    Profile(info(), matrices()).save(tmp_path / "profile")
    return tmp_path / "profile"


# ---- sound profiles --------------------------------------------------------------------------------------------------


def test_round_trip_keeps_the_settings(folder):
    loaded = Profile.load(folder)
    assert loaded.info == info() == Profile.read_info(folder) and loaded.blocks == BLOCKS
    assert sorted(os.listdir(folder)) == ["profile.json", "profile.npz"]
    for copied in (copy.deepcopy(loaded.info), pickle.loads(pickle.dumps(loaded.info))):
        assert copied == loaded.info and hash(copied) == hash(loaded.info)


def test_bundled_profiles_load():
    folders = [path.parent for path in (ROOT / "assets").rglob("profile.json")]
    assert folders
    for folder in folders:
        profile = Profile.load(folder)
        assert len(profile.blocks) == 24 and profile.info.matches(
            checkpoint_hash=profile.info.checkpoint_hash, weights="ema"
        )


def test_a_profile_stored_without_digest_and_settings_loads(folder):
    values = json.loads((folder / "profile.json").read_text())
    del values["npz_sha256"], values["settings"]
    (folder / "profile.json").write_text(json.dumps(values))
    assert Profile.load(folder).info == info(settings=None)


def test_matrices_stored_in_double_precision_or_by_columns_load(folder):
    rewrite(
        folder,
        lambda members: {
            name: npy(np.asfortranarray(np.load(io.BytesIO(raw)).astype(float))) for name, raw in members.items()
        },
    )
    assert np.allclose(Profile.load(folder).matrices["l1"][BLOCKS[0]], matrix("l1"))


# ---- what it is of ---------------------------------------------------------------------------------------------------


def test_differences_are_said_in_words():
    own = info()
    assert (
        own.matches()
        and own.differences(checkpoint_hash="a" * 64, weights="ema", sampler="ddim5", steps=5, settings=SETTINGS) == []
    )
    assert own.differences(checkpoint_hash="b" * 64, weights="raw", sampler="ddpm100", steps=100) == [
        f"checkpoint {'a' * 12} instead of {'b' * 12}",
        "weights ema instead of raw",
        "sampler ddim5 instead of ddpm100",
        "number of denoising steps 5 instead of 100",
    ]
    assert own.differences(settings={**SETTINGS, "seed_start": 0, "noise_seeds": (0,)}) == [
        "seed_start 20000 instead of 0",
        "noise_seeds [0, 1] instead of [0]",
    ]
    with pytest.raises(ProfileError, match="the settings of a profile are n_episodes, "):
        own.differences(settings={"episodes": 3})


@pytest.mark.parametrize(("stored", "wanted", "differs"), [
    ({"observations": 2, "settings": {**SETTINGS, "n_observations": 2}}, {}, "n_observations 2 instead of 64"),
    ({"observations": 31}, {}, None),  # 64 were asked for, and the episodes had no more
    ({"observations": 2, "settings": None}, {}, "n_observations 2 instead of 64"),
    ({"observations": 31, "settings": None}, {}, None),
    ({"observations": 64, "settings": None}, {"n_observations": 2}, "n_observations 64 instead of 2"),
    ({"settings": None}, {"n_episodes": 4}, "n_episodes 8 instead of 4"),
    ({"settings": None}, {"noise_seeds": [5]}, r"noise_seeds [0, 1] instead of [5]"),
])  # fmt: skip
def test_a_profile_of_few_observations_is_not_taken_for_one_of_many(stored, wanted, differs):
    own = info(**{"source": "rollouts of the full policy from seeds 20000..20007", **stored})
    assert own.differences(settings={**SETTINGS, **wanted}) == ([differs] if differs else [])


@pytest.mark.parametrize(("changes", "message"), [
    ({"noise_seeds": ()}, "at least one noise seed"), ({"observations": 0}, "at least one observation"),
    ({"observations": -4}, "negative"), ({"steps": 0}, "steps must lie in"), ({"steps": 10**9}, "steps must lie in"),
    ({"weights": "both"}, "'ema' or 'raw'"), ({"sampler": 5}, "sampler must hold text"),
    ({"noise_seeds": "01"}, "must be a list"), ({"noise_seeds": (0.5,)}, "integers"),
    ({"settings": {"batch": 1}}, "the settings of a profile"), ({"settings": [1]}, "the settings of a profile"),
])  # fmt: skip
def test_impossible_descriptions_are_refused(changes, message):
    with pytest.raises(ProfileError, match=message):
        info(**changes)


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_a_kill_between_the_two_files_leaves_no_profile_rather_than_a_mixed_one(folder, monkeypatch):
    replace = os.replace

    def killed(source, target):
        if Path(target).name == "profile.json":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Profile(info(checkpoint_hash="b" * 64), matrices()).save(folder)
    assert Profile.read_info(folder) is None and os.listdir(folder) == ["profile.npz"]


def test_a_description_without_arrays_is_refused(folder):
    (folder / "profile.npz").unlink()
    with pytest.raises(ProfileError, match="profile.json has no profile.npz beside it"):
        Profile.read_info(folder)


def test_a_failed_save_leaves_the_old_profile(folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        Profile(info(checkpoint_hash="b" * 64), matrices()).save(folder)
    assert Profile.load(folder).info == info() and sorted(os.listdir(folder)) == ["profile.json", "profile.npz"]


def test_two_that_save_at_once_leave_whole_files(tmp_path):
    profile = Profile(info(), matrices())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: profile.save(tmp_path), range(40)))
    assert Profile.load(tmp_path).info == info() and sorted(os.listdir(tmp_path)) == ["profile.json", "profile.npz"]
