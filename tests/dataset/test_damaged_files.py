"""Files of which nothing is known: mutations and handmade hostile ones end as sound data or a DatasetError, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
import resource
import shutil
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

h5py = pytest.importorskip("h5py")

from file_kinds import KINDS, ZARR_3, pusht_arrays, write_zarr, zipped  # noqa: E402
from robomimic_data import write_demonstrations  # noqa: E402

from diffusion_policy.dataset import limits  # noqa: E402
from diffusion_policy.dataset.numpy_files import read_npy, read_npz  # noqa: E402
from diffusion_policy.dataset.pusht_dataset import load_pusht_lowdim  # noqa: E402
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer  # noqa: E402
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim  # noqa: E402
from diffusion_policy.dataset.sequence_dataset import Windows  # noqa: E402

KEYS = ("keypoint", "state", "action")
MORE_BYTES = 1 << 30
N_MUTATIONS = 25
VALUES = [
    b"",
    b"null",
    b"[]",
    b"-1",
    b"99999999999999999999",
    b'"|O"',
    b'"<f8"',
    b"true",
    b'"pickle"',
    b"[" * 2000,
    b"0",
]


def mutate(path: Path, rng: random.Random) -> None:
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    file = rng.choice(files)
    content = bytearray(file.read_bytes()) or bytearray(1)
    start = rng.randrange(len(content))
    how = rng.randrange(6)
    if how == 0:
        content[start] ^= 1 << rng.randrange(8)
    elif how == 1:
        del content[start:]
    elif how == 2:
        content[start : start + 4] = rng.choice([b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", rng.randbytes(4)])
    elif how == 3:
        content[start:start] = rng.randbytes(9)
    elif how == 4:
        del content[start : start + 9]
    else:
        content[start : start + rng.randrange(5)] = rng.choice(VALUES)
    file.write_bytes(content)


@pytest.mark.parametrize(("make", "load"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
def test_a_mutated_file_is_refused_or_read(tmp_path, make, load):
    (tmp_path / "sound").mkdir()
    sound = make(tmp_path / "sound")
    load(sound)
    rng, before = random.Random(0), resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MORE_BYTES, before[1]))
    try:
        for _ in range(N_MUTATIONS):
            damaged = tmp_path / "damaged" / sound.name
            shutil.rmtree(damaged.parent, ignore_errors=True)
            damaged.parent.mkdir()
            (shutil.copytree if sound.is_dir() else shutil.copy2)(sound, damaged)
            mutate(damaged, rng)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    load(damaged)
                except DatasetError as error:
                    assert str(damaged.parent) in str(error)  # the file is named
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


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


# ---- every codec and form that is on the lists ----
FORMS = (
    [{"compressor": numcodecs.Blosc(cname)} for cname in ("zstd", "lz4", "zlib", "blosclz")]
    + [
        {"compressor": codec}
        for codec in (None, numcodecs.Zstd(), numcodecs.LZ4(), numcodecs.Zlib(), numcodecs.GZip(), numcodecs.BZ2())
    ]
    + [
        {"order": "F"},
        {"dimension_separator": "/"},
        {"filters": [numcodecs.Shuffle(8)]},
        {"filters": [numcodecs.Delta("<f8")]},
        {"filters": [numcodecs.Delta("<f8"), numcodecs.Shuffle(8)], "compressor": numcodecs.Zlib()},
    ]
)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_what_zarr_writes_in_format_2_is_what_is_read(tmp_path, options):
    values = np.round(np.random.default_rng(0).uniform(0, 99, (20, 3, 4))).astype("<f8")
    write_zarr(tmp_path / "a.zarr", {})
    array = zarr.create(
        store=str(tmp_path / "a.zarr"),
        path="data/x",
        shape=values.shape,
        dtype="<f8",
        chunks=(7, 2, 4),
        **({"zarr_format": 2} if ZARR_3 else {}),
        **options,
    )
    array[...] = values
    np.testing.assert_array_equal(read(tmp_path / "a.zarr", ("x",)).data["x"], values)


@pytest.mark.skipif(not ZARR_3, reason="zarr 2 does not write format 3")
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", ">u8", "<f2"])
@pytest.mark.parametrize("compressors", [None, "zstd", "gzip", "blosc", "crc32c"])
def test_what_zarr_writes_in_format_3_is_what_is_read(tmp_path, kind, compressors):
    from zarr import codecs

    made = {
        "zstd": [codecs.ZstdCodec()],
        "gzip": [codecs.GzipCodec()],
        "blosc": [codecs.BloscCodec(cname="lz4")],
        "crc32c": [codecs.Crc32cCodec(), codecs.ZstdCodec(), codecs.Crc32cCodec()],
        None: None,
    }[compressors]
    values = np.random.default_rng(0).integers(0, 99, (20, 3, 4)).astype(kind)
    root = zarr.open_group(str(write_zarr(tmp_path / "a.zarr", {}, version=3)), mode="r+")
    root.create_array(
        "data/x", data=values, chunks=(7, 2, 4), compressors=made, filters=[codecs.TransposeCodec(order=(2, 0, 1))]
    )
    found = read(tmp_path / "a.zarr", ("x",)).data["x"]
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype.newbyteorder("=")


def test_big_chunks_are_read_by_several_threads_alike(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 9)).astype(np.float32)
    path = write_zarr(tmp_path / "a.zarr", {"img": images}, chunk=3)
    np.testing.assert_array_equal(read(path, ("img",), image_keys=("img",)).data["img"], images)
    (path / "data/img/4.0.0.0").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"img/4\.0\.0\.0 is damaged"):
        read(path, ("img",), image_keys=("img",))


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


# ---- NumPy files ----
def npy_bytes(header: str, body: bytes = bytes(64)) -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + body


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}\n",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -8)}\n",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (8,)}\n",
        "{'descr': ('<f8', (8,)), 'fortran_order': False, 'shape': (1,)}\n",
        "{'descr': (",
        "((((" * 500,
        "",
    ],
)
def test_hostile_headers_of_arrays_are_refused(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(npy_bytes(header))
    with pytest.raises(DatasetError, match="cannot read .*a.npy"):
        read_npy(tmp_path / "a.npy")


def test_packed_arrays_claim_what_they_can_hold(tmp_path, monkeypatch):
    arrays = {"a": np.zeros((100, 100)), "b": np.asfortranarray(np.arange(6).reshape(2, 3))}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    for name, values in read_npz(tmp_path / "a.npz").items():
        np.testing.assert_array_equal(values, arrays[name])
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 0)
    monkeypatch.setattr(limits, "PLAUSIBLE_RATIO", 10)
    with pytest.raises(DatasetError, match="a.npz .*claims"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DatasetError, match="o.npz .*object, not plain numbers"):
        read_npz(tmp_path / "o.npz")
