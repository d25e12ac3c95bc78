"""HDF5 files of which nothing is known: links, storage elsewhere, filters and attributes that are refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

pytest.importorskip("h5py")

import h5py
from robomimic_data import write_demonstrations

from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim
from diffusion_policy.dataset.sequence_dataset import Windows


# ---- HDF5 ----
@pytest.fixture
def hdf5(tmp_path):
    write_demonstrations(tmp_path / "low_dim_abs.hdf5", lengths=(8, 9))
    return tmp_path / "low_dim_abs.hdf5"


def load_hdf5(path):
    return load_robomimic_lowdim(path, "can", Windows(4))


def replaced(demo, **options):
    del demo["actions"]
    demo.create_dataset("actions", **options)


def virtual(demo):
    layout = h5py.VirtualLayout((9, 7), "f8")
    layout[:] = h5py.VirtualSource("elsewhere.hdf5", "actions", (9, 7))
    del demo["actions"]
    demo.create_virtual_dataset("actions", layout)


def linked(demo, link):
    del demo["actions"]
    demo["actions"] = link


def gzip_bomb(demo):
    replaced(demo, shape=(9, 7), maxshape=(None, 7), dtype="f8", chunks=(9 * 20_000, 7), compression="gzip")
    demo["actions"].id.write_direct_chunk((0, 0), zlib.compress(bytes(200_000_000), 9))


HOSTILE = {
    "external link": (lambda demo: linked(demo, h5py.ExternalLink("/elsewhere.hdf5", "/actions")), "is a link"),
    "soft link": (lambda demo: linked(demo, h5py.SoftLink("/data/demo_0/actions")), "is a link"),
    "virtual": (virtual, "stored in other files"),
    "external storage": (
        lambda demo: replaced(demo, shape=(9, 7), dtype="f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
        "stored in other files",
    ),
    "records": (lambda demo: replaced(demo, shape=(9, 7), dtype=np.dtype([("a", "f4")])), "plain numbers"),
    "references": (lambda demo: replaced(demo, shape=(9, 7), dtype=h5py.ref_dtype), "plain numbers"),
    "lists": (lambda demo: replaced(demo, shape=(9, 7), dtype=h5py.vlen_dtype("f8")), "plain numbers"),
    "texts": (lambda demo: replaced(demo, shape=(9, 7), dtype=h5py.string_dtype()), "plain numbers"),
    "bytes": (lambda demo: replaced(demo, shape=(9, 7), dtype="u1"), "is uint8 .* at least 16 bits"),
    "plug-in": (
        lambda demo: replaced(demo, shape=(9, 7), dtype="i4", scaleoffset=0),
        "only gzip, shuffle, fletcher32, lzf",
    ),
    "huge": (lambda demo: replaced(demo, shape=(10**9, 7), dtype="f8"), "claims 56,000,000,000 bytes"),
    "huge in chunks": (
        lambda demo: replaced(demo, shape=(10**9, 7), dtype="f8", chunks=(99, 7)),
        "claims 56,000,000,000 bytes",
    ),
    "huge chunk": (
        lambda demo: replaced(demo, shape=(9, 7), maxshape=(None, 7), dtype="f8", chunks=(6 * 10**7, 7)),
        "has chunks of",
    ),
    "bomb": (gzip_bomb, "a chunk unpacks to more than"),
    "no rows": (lambda demo: replaced(demo, data=5.0), "has no rows"),
    "empty": (lambda demo: replaced(demo, data=h5py.Empty("f8")), "has no rows"),
    "group": (
        lambda demo: (demo.__delitem__("actions"), demo.create_group("actions")),
        "is a group where an array should be",
    ),
    "array for group": (
        lambda demo: (demo.__delitem__("obs"), demo.create_dataset("obs", data=5)),
        "has no obs/.* is not a group",
    ),
    "renamed": (lambda demo: demo.parent.move("demo_1", "dfmo_1"), "data/dfmo_1, which is no demonstration"),
    "beyond float32": (lambda demo: demo["actions"].__setitem__((3, 2), 1e300), "not finite .* inf in row 3, column 2"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_hdf5_is_refused(hdf5, how):
    change, message = HOSTILE[how]
    with h5py.File(hdf5, "r+") as file:
        change(file["data/demo_1"])
    with pytest.raises(DatasetError, match=f"low_dim_abs.hdf5.*{message}"):
        load_hdf5(hdf5)


@pytest.mark.parametrize(
    "value", [np.arange(5), np.array(["a", "b"], dtype="S"), "[" * 60_000, '{"env_name": ' + "9" * 5000 + "}", b"\xff"]
)
def test_hostile_attributes_are_refused(hdf5, value):
    with h5py.File(hdf5, "r+") as file:
        del file["data"].attrs["env_args"]
        file["data"].attrs["env_args"] = value
    with pytest.raises(DatasetError, match="env_args"):
        load_hdf5(hdf5)


@pytest.mark.parametrize(
    "options",
    [{"compression": "gzip", "shuffle": True, "fletcher32": True}, {"compression": "lzf"}, {"chunks": (2, 7)}],
)
def test_packed_hdf5_is_read(hdf5, options):
    expected = load_hdf5(hdf5)[0].fields["action"]
    with h5py.File(hdf5, "r+") as file:
        replaced(file["data/demo_1"], data=file["data/demo_1/actions"][...], **options)
    np.testing.assert_array_equal(load_hdf5(hdf5)[0].fields["action"], expected)
