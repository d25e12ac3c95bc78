"""Zarr data sets of which nothing is known: metadata, chunks, links and archives that are refused."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest

pytest.importorskip("h5py")  # file_kinds writes HDF5, too
from file_kinds import ZARR_3, pusht_arrays, write_zarr, zipped

from diffusion_policy.dataset.pusht_dataset import load_pusht_lowdim
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.sequence_dataset import Windows

KEYS = ("keypoint", "state", "action")


def read(path, keys=KEYS, **options):
    return ReplayBuffer.from_zarr(path, keys, **options)


def edited(path: Path, file: str, **changes) -> Path:
    metadata = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps({**metadata, **changes}))
    return path


@pytest.fixture
def folder(tmp_path):
    return write_zarr(tmp_path / "a.zarr")


# ---- what zarr metadata ask for ----
class Executed:
    """Its pickle, when read, makes a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    "changes",
    [
        {"filters": [{"id": "pickle"}], "compressor": None},
        {"compressor": {"id": "pickle"}},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "compressor": None, "fill_value": None},
        {"dtype": "|O", "filters": [{"id": "pickle"}], "compressor": None, "fill_value": None},
    ],
)
def test_opening_a_data_set_runs_no_code(folder, tmp_path, changes):
    import pickle

    edited(folder, "data/action/.zarray", **changes)
    for chunk in (folder / "data/action").glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Executed(tmp_path / "executed")))
    with pytest.raises(DatasetError, match=r"data/action/\.zarray asks for the .*store it anew"):
        read(folder)
    assert not (tmp_path / "executed").exists()


REFUSED_2 = (
    [{"dtype": kind} for kind in ("|O", "<M8[ns]", "|V8", "<U4", "|S4", "<c8", "<f16", [["a", "<f4"]], 5, None)]
    + [{"filters": value} for value in ({"id": "delta"}, [5], [{"id": "json2"}], [{"id": "delta", "dtype": "|O"}])]
    + [{"compressor": value} for value in ({"id": "lzma"}, {"id": ["blosc"]}, 5)]
    + [{"shape": value} for value in ([-1, 2], [20], "20", [True, 2], [2**70, 2], [1] * 40, [20, 2.5])]
    + [{"chunks": value} for value in ([0, 2], [8], None, [10**9, 2])]
    + [
        {"order": "K"},
        {"order": ["C"]},
        {"dimension_separator": "../"},
        {"fill_value": "x"},
        {"fill_value": [1]},
        {"fill_value": 10**400},
        {"zarr_format": 1},
        {"zarr_format": "2"},
    ]
)


@pytest.mark.parametrize("changes", REFUSED_2, ids=str)
def test_metadata_of_format_2_that_are_not_on_the_lists(folder, changes):
    edited(folder, "data/action/.zarray", **changes)
    with pytest.raises(DatasetError, match=r"data/action/\.zarray asks for"):
        read(folder)


REFUSED_3 = (
    [{"data_type": value} for value in ("object", "string", {"name": "numpy.datetime64"}, "r16", "complex64")]
    + [
        {"codecs": value}
        for value in (
            [{"name": "pickle"}],
            [{"name": "bytes"}, {"name": "numcodecs.pickle"}],
            [],
            5,
            [5],
            [{"name": "vlen-utf8"}],
            [{"name": "sharding_indexed", "configuration": {}}],
            [{"name": "bytes"}, {"name": "zstd"}, {"name": "gzip"}],
            [{"name": "transpose", "configuration": {"order": [0, 0]}}, {"name": "bytes"}],
        )
    ]
    + [
        {"chunk_grid": {"name": "rectangular"}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "../"}}},
        {"storage_transformers": [1]},
        {"node_type": "group"},
        {"zarr_format": 4},
        {"extension": 1},
    ]
)


@pytest.mark.skipif(not ZARR_3, reason="zarr 2 does not write format 3")
@pytest.mark.parametrize("changes", REFUSED_3, ids=str)
def test_metadata_of_format_3_that_are_not_on_the_lists(tmp_path, changes):
    edited(write_zarr(tmp_path / "a.zarr", version=3), "data/action/zarr.json", **changes)
    with pytest.raises(DatasetError, match=r"data/action/zarr\.json asks for"):
        read(tmp_path / "a.zarr")


def test_consolidated_metadata_are_no_way_round(folder):
    copy = {"metadata": {"data/action/.zarray": {"filters": [{"id": "pickle"}], "dtype": "|O", "shape": [5]}}}
    (folder / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, **copy}))
    np.testing.assert_array_equal(read(folder).data["action"], pusht_arrays()["action"])


def test_metadata_that_contradict_their_place(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "group.zarr")
    shutil.rmtree(tmp_path / "group.zarr/data/action")
    shutil.copytree(folder / "meta", tmp_path / "group.zarr/data/action")
    with pytest.raises(DatasetError, match="data/action is a group where an array should be"):
        read(tmp_path / "group.zarr")
    (folder / "data/action/zarr.json").write_text("{}")
    with pytest.raises(DatasetError, match="storage formats 2 and 3"):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"shape": ' + b"9" * 5000 + b"}"])
@pytest.mark.parametrize("file", [".zgroup", "data/action/.zarray", "meta/episode_ends/.zarray"])
def test_damaged_metadata_name_their_file(folder, file, content):
    (folder / file).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{file}.* is damaged"):
        read(folder)


# ---- what is stored ----
PACKERS = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "zstd": lambda data: bytes(numcodecs.Zstd().encode(data)),
    "lz4": lambda data: bytes(numcodecs.LZ4().encode(data)),
    "blosc": lambda data: bytes(numcodecs.Blosc().encode(data)),
}


@pytest.mark.parametrize("name", PACKERS)
def test_a_chunk_unpacks_to_its_size_or_not_at_all(folder, name):
    edited(folder, "data/action/.zarray", compressor={"id": name}, chunks=[20, 2], filters=None)
    chunk, action = folder / "data/action/0.0", pusht_arrays()["action"]
    for other in ("1.0", "2.0"):
        (folder / "data/action" / other).unlink()
    packed = PACKERS[name](action.tobytes())
    chunk.write_bytes(packed)
    np.testing.assert_array_equal(read(folder).data["action"], action)
    for content in (PACKERS[name](bytes(50_000_000)), PACKERS[name](bytes(10)), packed[:-5], packed[:3], b""):
        chunk.write_bytes(content)
        with pytest.raises(DatasetError, match=r"data/action/0\.0 (is damaged|has more than)"):
            read(folder)
    for claim in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", bytes(4)):  # in the headers
        for place in (0, 4, 8, 12):
            chunk.write_bytes(packed[:place] + claim + packed[place + 4 :])
            try:
                read(folder)
            except DatasetError:
                pass  # some bytes of a header mean nothing to some compressors


@pytest.mark.parametrize("file", ["data/action/.zarray", "meta/episode_ends/.zarray"])
def test_a_claimed_shape_is_compared_with_what_is_stored(folder, file):
    rows = json.loads((folder / file).read_text())["shape"]
    edited(folder, file, shape=[10**9, *rows[1:]])
    with pytest.raises(DatasetError, match=r"claims [0-9,]{9,} bytes, and [0-9,]{3,6} bytes are stored"):
        read(folder)


def test_absent_chunks_are_what_zarr_says_and_that_is_said(folder):
    (folder / "data/action/1.0").unlink()
    with pytest.warns(UserWarning, match="1 of the 3 chunks of data/action are absent and count as 0"):
        assert (read(folder).data["action"][8:16] == 0).all()


def test_links_that_lead_out_of_the_data_set_are_refused(folder, tmp_path):
    os.symlink(folder, tmp_path / "link.zarr")
    assert read(tmp_path / "link.zarr").n_episodes == 3  # the data set itself may be one
    os.symlink(folder / "data/action/0.0", folder / "data/action/unused")
    assert read(folder).n_episodes == 3  # and so may what stays inside
    for name in ("data/action/0.0", "data/action/.zarray", "data/action", "meta"):
        damaged = tmp_path / name.replace("/", "_") / "a.zarr"
        shutil.copytree(folder, damaged)
        (damaged / name).rename(tmp_path / f"moved_{name.replace('/', '_')}")
        os.symlink(tmp_path / f"moved_{name.replace('/', '_')}", damaged / name)
        with pytest.raises(DatasetError, match="leads out of the data set"):
            read(damaged)


@pytest.mark.parametrize("name", ["data/action/0.0", "data/action/.zarray", ".zgroup"])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DatasetError, match="not a plain file"):
        read(folder)


# ---- zip archives of zarr ----
@pytest.mark.parametrize("version", [2, 3] if ZARR_3 else [2])
@pytest.mark.parametrize("above", ["", "pusht/replay.zarr/"])
def test_a_zip_archive_is_read_like_its_folder(tmp_path, version, above):
    folder = write_zarr(tmp_path / "a.zarr", version=version)
    with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, above + str(file.relative_to(folder)))
    from_zip, from_folder = (load_pusht_lowdim(path, Windows(4))[0] for path in (tmp_path / "a.zarr.zip", folder))
    for name, values in from_folder.fields.items():
        np.testing.assert_array_equal(from_zip.fields[name], values)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "a.zarr.zip"]


def test_zip_archives_that_are_refused(folder, tmp_path):
    def archive(name, members, method=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / name, "w", method) as file:
            for member, content in members.items():
                file.writestr(member, content)
        return tmp_path / name

    group = '{"zarr_format": 2}'
    for path, message in [
        (archive("none.zip", {"x": "y"}), "without a zarr group"),
        (archive("two.zip", {"a/.zgroup": group, "b/.zgroup": group}), "several zarr groups"),
        (archive("lzma.zip", {".zgroup": group}, zipfile.ZIP_LZMA), "packed in another way"),
        (
            archive("bomb.zip", {".zgroup": group, "data/keypoint/.zarray": b" " * 20_000_000}),
            "more than the .* it can need",
        ),
    ]:
        with pytest.raises(DatasetError, match=message):
            read(path)
    link = zipfile.ZipInfo("data/x")
    link.external_attr = 0o120777 << 16
    with pytest.raises(DatasetError, match="data/x is a symbolic link"):
        read(archive("link.zip", {".zgroup": group, link: "/etc/passwd"}))
    path = zipped(folder)
    content = bytearray(path.read_bytes())
    content[content.index(b"data/action/0.0") + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"data/action/0\.0 is damaged"):
        read(path)
