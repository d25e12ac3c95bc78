"""Stored profiles: what is not a sound profile of what it claims to be is refused, cheaply and by name."""

import copy
import io
import json
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bac.profile import Profile, ProfileError
from bac.schedule import ScheduleError
from bac.similarity import METRICS
from tests.bac.profiles import BLOCKS, info, matrices, matrix, with_entry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    Profile(info(), matrices()).save(tmp_path / "profile")
    return tmp_path / "profile"


def rewrite(folder, change, compression=zipfile.ZIP_DEFLATED, keep_digest=False):
    """The stored arrays with `change` applied to {name: bytes}; as an older profile, which has no digest."""
    with zipfile.ZipFile(folder / "profile.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = change(members) or members
    with zipfile.ZipFile(folder / "profile.npz", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    values = json.loads((folder / "profile.json").read_text())
    if not keep_digest:
        del values["npz_sha256"]
    (folder / "profile.json").write_text(json.dumps(values))


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: str, data: bytes = b"\0" * 100) -> bytes:
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117).encode() + b"\n" + data


NAME = f"cosine|{BLOCKS[0]}.npy"


def replaced(content):
    return lambda members: members.update({NAME: content})


# ---- sound profiles ----


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


# ---- damaged files ----


DAMAGED = {
    "NaN": replaced(npy(with_entry("cosine", np.nan).astype("f4"))),
    "asymmetric": replaced(npy(with_entry("cosine", -0.9, symmetric=False))),
    "other shape": replaced(npy(np.ones((4, 4), "f4"))),
    "one dimension": replaced(npy(np.ones(25, "f4"))),
    "integers": replaced(npy(np.ones((5, 5), "i4"))),
    "objects": replaced(header("{'descr': '|O', 'fortran_order': False, 'shape': (5, 5), }")),
    "a huge claim": replaced(header("{'descr': '<f4', 'fortran_order': False, 'shape': (999999, 999999), }")),
    "a shape beyond all": replaced(
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 1), }")
    ),
    "code for a header": replaced(header("__import__('os').system('true')")),
    "more than its shape": replaced(npy(np.ones((5, 5), "f4")) + b"\0"),
    "less than its shape": replaced(npy(np.ones((5, 5), "f4"))[:-1]),
    "no array": replaced(b"text"),
    "empty": replaced(b""),
    "packed zeros": replaced(b"\0" * 50_000_000),
    "a missing metric": lambda members: {name: raw for name, raw in members.items() if not name.startswith("l1")},
    "a missing block": lambda members: {name: raw for name, raw in members.items() if name != NAME},
    "another name": lambda members: {**members, "notes.npy": members[NAME]},
    "a name with a path": lambda members: {**members, f"../{NAME}": members[NAME]},
    "not an array's name": lambda members: {**members, "cosine|decoder.layers.1.sa.txt": members[NAME]},
    "a block of no model": lambda members: {**members, "cosine|head.npy": members[NAME]},
    "one that is empty": lambda members: {"x": b""},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_arrays_are_refused_by_name(folder, what):
    rewrite(folder, DAMAGED[what])
    with pytest.raises(ProfileError, match="profile.npz.*profile again with overwrite=true") as caught:
        Profile.load(folder)
    assert isinstance(caught.value, ScheduleError) and len(str(caught.value)) < 700


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(folder, compression):
    rewrite(folder, lambda members: None, compression)
    with pytest.raises(ProfileError, match="packed in a way that a profile is not"):
        Profile.load(folder)


def test_an_array_twice_is_refused(folder):
    rewrite(folder, lambda members: None)
    with zipfile.ZipFile(folder / "profile.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(NAME, npy(np.ones((5, 5), "f4")))
    with pytest.raises(ProfileError, match="more than once"):
        Profile.load(folder)


def test_60000_arrays_are_refused_before_they_are_listed(folder):
    rewrite(folder, lambda members: {str(i): b"" for i in range(60_000)})
    with pytest.raises(ProfileError, match="60000 arrays"):
        Profile.load(folder)


@pytest.mark.parametrize("with_digest", [True, False])
def test_any_flipped_bit_is_refused(folder, with_digest):
    """Also where no digest tells: the matrices' checksums do, unless the bit means nothing (a date)."""
    rewrite(folder, lambda members: None, zipfile.ZIP_STORED)
    path, reference = folder / "profile.npz", Profile.load(folder)
    whole = path.read_bytes()
    if with_digest:
        reference.save(folder)
        whole = path.read_bytes()
    for position in range(0, len(whole), 11):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :])
        try:
            loaded = Profile.load(folder)
        except ProfileError as error:
            assert str(path) in str(error)
        else:
            assert not with_digest and all(
                np.array_equal(loaded.matrices[m][b], reference.matrices[m][b]) for m in METRICS for b in BLOCKS
            )


def test_every_truncation_is_refused(folder):
    whole = (folder / "profile.npz").read_bytes()
    rewrite(folder, lambda members: None)
    for length in range(0, len(whole), 37):
        (folder / "profile.npz").write_bytes(whole[:length])
        with pytest.raises(ProfileError, match="profile.npz"):
            Profile.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must be a JSON object"),
        ("5", "must be a JSON object"),
        ("{}", "missing: checkpoint_hash, "),
        ("", "damaged"),
        ("[" * 100_000, "damaged .*nested too deeply"),
        ('{"steps": 1, "steps": 2}', "more than once"),
        ('{"steps": NaN}', "NaN"),
        ('{"steps": ' + "9" * 5000 + "}", "integer of 5000 digits"),
        (" " * 2**21, "damaged"),
        ('{"steps": "\\ud800"}', "missing"),
    ],
)
def test_damaged_descriptions_are_refused_by_name(folder, content, message):
    (folder / "profile.json").write_text(content)
    for read in (Profile.load, Profile.read_info):
        with pytest.raises(ProfileError, match=rf"(?s)profile.json.*{message}") as caught:
            read(folder)
        assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "unknown: surprise"),
        ({"steps": 4}, r"must be \[4, 4\]"),
        ({"steps": "5"}, "integers"),
        ({"noise_seeds": []}, "noise seed"),
        ({"weights": None}, "text"),
        ({"npz_sha256": 5}, "text"),
        ({"npz_sha256": "0" * 64}, "not the one that profile.json describes"),
        ({"settings": {"n_episodes": "8"}}, "integers"),
        ({"observations": True}, "integers"),
        ({"steps": 2000}, "must be"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(folder, changes, message):
    path = folder / "profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ProfileError, match=rf"(?s){message}.*profile again with overwrite=true"):
        Profile.load(folder)


# ---- writing ----


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
