"""Every codec and form of zarr that is allowed is read as zarr wrote it."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarr

pytest.importorskip("h5py")  # file_kinds writes HDF5, too
from file_kinds import ZARR_3, write_zarr

from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer


def read(path, keys, **options):
    return ReplayBuffer.from_zarr(path, keys, **options)


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
