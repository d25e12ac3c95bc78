"""Stored profiles: what is not a sound profile of what it claims to be is refused, cheaply and by name."""

import json
import zipfile

import numpy as np
import pytest

from bac.profile_matrices import Profile, ProfileError
from bac.schedule import ScheduleError
from bac.similarity import METRICS
from tests.bac.example_profiles import BLOCKS, info, matrices, matrix, with_entry
from tests.bac.profile_archives import header, npy, rewrite

NAME = f"cosine|{BLOCKS[0]}.npy"


@pytest.fixture
def folder(tmp_path):
    Profile(info(), matrices()).save(tmp_path / "profile")
    return tmp_path / "profile"


def replaced(content):
    return lambda members: members.update({NAME: content})


# ---- matrices --------------------------------------------------------------------------------------------------------


def broken(metric=None, block=BLOCKS[0], value=None, order=None):
    result = matrices()
    if metric:
        result[metric][block] = value
    if order:
        result = {name: {block: blocks[block] for block in order} for name, blocks in result.items()}
    return result


BROKEN = {
    "nan": (broken("l1", value=with_entry("l1", np.nan)), "l1 of decoder.layers.0.sa holds NaN or infinite"),
    "infinite": (broken("mse", value=with_entry("mse", np.inf)), "NaN or infinite"),
    "asymmetric": (broken("l2", value=with_entry("l2", 0.9, symmetric=False)), "is not symmetric"),
    "no cosine": (broken("cosine", value=with_entry("cosine", 1.5)), "is no cosine"),
    "negative distance": (broken("l1", value=with_entry("l1", -0.5)), "negative distance"),
    "beyond single precision": (broken("mse", value=with_entry("mse", 1e300)), "more than its stored form can"),
    "other steps": (broken("l1", value=np.zeros((4, 4))), r"must be float \[5, 5\]"),
    "integers": (broken("l1", value=np.zeros((5, 5), int)), "must be float"),
    "one row": (broken("l1", value=np.zeros(5)), "must be float"),
    "an unknown metric": ({**matrices(), "angle": matrices()["l1"]}, "unknown: angle"),
    "a missing metric": ({"cosine": matrices()["cosine"]}, "missing: l1, l2, mse"),
    "no matrices": ({}, "missing: cosine, l1, l2"),
    "an unknown block": (broken("l1", "head", matrix("l1")), "other blocks than cosine"),
    "blocks out of order": (broken(order=BLOCKS[::-1]), "execution order"),
    "no blocks": ({metric: {} for metric in METRICS}, "no blocks"),
    "other steps than described": (
        {m: {b: np.zeros((4, 4)) for b in BLOCKS} for m in METRICS},
        r"must be float \[5, 5\]",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_unsound_matrices_are_never_stored(what):
    content, message = BROKEN[what]
    with pytest.raises(ProfileError, match=message):
        Profile(info(), content)


# ---- damaged files ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("content", "message"), [
    ("[1]", "must be a JSON object"), ("5", "must be a JSON object"), ("{}", "missing: checkpoint_hash, "),
    ("", "damaged"), ("[" * 100_000, "damaged .*nested too deeply"), ('{"steps": 1, "steps": 2}', "more than once"),
    ('{"steps": NaN}', "NaN"), ('{"steps": ' + "9" * 5000 + "}", "integer of 5000 digits"), (" " * 2**21, "damaged"),
    ('{"steps": "\\ud800"}', "missing"),
])  # fmt: skip
def test_damaged_descriptions_are_refused_by_name(folder, content, message):
    (folder / "profile.json").write_text(content)
    for read in (Profile.load, Profile.read_info):
        with pytest.raises(ProfileError, match=rf"(?s)profile.json.*{message}") as caught:
            read(folder)
        assert len(str(caught.value)) < 700


@pytest.mark.parametrize(("changes", "message"), [
    ({"surprise": 1}, "unknown: surprise"), ({"steps": 4}, r"must be \[4, 4\]"), ({"steps": "5"}, "integers"),
    ({"noise_seeds": []}, "noise seed"), ({"weights": None}, "text"), ({"npz_sha256": 5}, "text"),
    ({"npz_sha256": "0" * 64}, "not the one that profile.json describes"),
    ({"settings": {"n_episodes": "8"}}, "integers"), ({"observations": True}, "integers"), ({"steps": 2000}, "must be"),
])  # fmt: skip
def test_descriptions_that_do_not_fit_are_refused(folder, changes, message):
    path = folder / "profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ProfileError, match=rf"(?s){message}.*profile again with overwrite=true"):
        Profile.load(folder)
