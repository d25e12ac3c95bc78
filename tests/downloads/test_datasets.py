"""Downloading demonstrations: resume, damage, checksum. Everything is served from this machine."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bac_workbench.downloads import datasets as module
from bac_workbench.downloads.datasets import SOURCES, download, verify
from bac_workbench.downloads.sources import ArchiveError, FileSource, content_sha256, unpack
from diffusion_policy.dataset import limits
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from tests.downloads.toy_data import FOLDER, KEYS, toy_buffer, write_zarr


# ---- unpack and verify ----
def test_download_ends_with_the_verified_folder_and_nothing_else(server, source, tmp_path):
    folder = download(source, tmp_path / "data", server[0])
    assert folder == tmp_path / "data" / FOLDER
    assert [p.relative_to(tmp_path / "data").as_posix() for p in sorted((tmp_path / "data").glob("*/*"))] == [FOLDER]
    np.testing.assert_array_equal(verify(folder, source).data["action"], toy_buffer().data["action"])


def test_data_that_is_there_is_not_fetched_again(server, source, tmp_path):
    download(source, tmp_path / "data", server[0])
    download(source, tmp_path / "data", server[0])
    assert len(server[1].requested) == 1


def test_an_archive_put_in_place_by_hand_needs_no_network(archive, source, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "toy.zip").write_bytes(archive.read_bytes())
    assert download(source, tmp_path / "data", "http://127.0.0.1:9/toy.zip").is_dir()


def test_a_file_url_works(source, tmp_path):
    assert download(source, tmp_path / "data").is_dir()


def test_other_numbers_are_refused_and_leave_no_folder(source, tmp_path):
    with pytest.raises(DatasetError, match="holds other data than expected .*\nDelete"):
        download(replace(source, sha256="0" * 64), tmp_path / "data")
    assert not (tmp_path / "data" / FOLDER).exists()
    assert list((tmp_path / "data" / "toy").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "foreign", "flipped"])
def test_a_damaged_archive_is_refused_and_leaves_no_folder(archive, source, tmp_path, damage):
    body = bytearray(archive.read_bytes())
    if damage == "truncated":
        body = body[: len(body) // 2]
    elif damage == "foreign":
        body = bytearray(b"<html>moved</html>")
    else:  # one bit inside the first file's compressed data
        with zipfile.ZipFile(archive) as file:
            info = next(i for i in file.infolist() if i.compress_size > 0)
        body[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0x40
    archive.write_bytes(body)
    with pytest.raises(DatasetError, match="not a complete zip archive"):
        download(source, tmp_path / "data")
    assert not (tmp_path / "data" / FOLDER).exists()


def test_unpack_stays_inside_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr(f"{FOLDER}/../../../escaped.txt", "evil")
        file.writestr(f"{FOLDER}/good.txt", "good")
    unpack(tmp_path / "evil.zip", FOLDER, tmp_path / "a" / "b" / "target")
    assert [p.name for p in tmp_path.rglob("*.txt")] == ["good.txt"]
    with pytest.raises(DatasetError, match="has no elsewhere"):
        unpack(tmp_path / "evil.zip", "elsewhere", tmp_path / "c")


def test_a_data_folder_above_this_one(source, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert download(source, "../data") == Path("../data") / FOLDER
    assert verify(tmp_path / "data" / FOLDER, source).n_episodes == 2


@pytest.mark.parametrize("how", ["link", "bomb", "method"])
def test_archives_that_are_not_unpacked(tmp_path, how, monkeypatch):
    info = zipfile.ZipInfo(f"{FOLDER}/.zgroup")
    if how == "link":
        info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(
        tmp_path / "a.zip", "w", zipfile.ZIP_LZMA if how == "method" else zipfile.ZIP_DEFLATED
    ) as file:
        file.writestr(info if how == "link" else info.filename, bytes(20_000_000) if how == "bomb" else b"/etc")
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 1 << 20)
    message = {"link": "is a link", "bomb": "claims 20,000,000 bytes", "method": "packed in another way"}[how]
    with pytest.raises(ArchiveError, match=message):
        unpack(tmp_path / "a.zip", FOLDER, tmp_path / "target")
    assert not any(path.is_file() for path in (tmp_path / "target").rglob("*"))


def test_a_sound_archive_is_not_to_be_deleted_for_a_full_disk_or_a_wrong_checksum(source, tmp_path, monkeypatch):
    with pytest.raises(DatasetError, match="Correct sha256= if that is wrong"):
        download(source, tmp_path / "data", sha256="0" * 64)
    full = module.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: full)
    with pytest.raises(DatasetError, match="GB left") as raised:
        download(source, tmp_path / "data")
    assert "elete" not in str(raised.value) and [path.name for path in (tmp_path / "data" / "toy").iterdir()] == []
    assert (tmp_path / "data" / "toy.zip").exists()


def test_a_checksum_of_files_is_compared_before_they_are_read(tmp_path):
    read = []
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.npy").write_bytes(b"x")
    source = FileSource("https://x.org/d.zip", "d", ("*.npy",), "0" * 64, reader=read.append)
    with pytest.raises(DatasetError, match="holds other data than expected"):
        verify(tmp_path / "d", source)
    assert read == []


# ---- checksum ----
def test_checksum_follows_its_definition():
    buffer = ReplayBuffer({"action": np.array([[1.0], [2.0]], dtype="<f4")}, np.array([2], dtype="<i8"))
    written = (
        b"action <f4 (2, 1)\n" + bytes.fromhex("0000803f00000040") + b"episode_ends <i8 (1,)\n" + bytes([2] + 7 * [0])
    )
    assert content_sha256(buffer, ("action",)) == hashlib.sha256(written).hexdigest()


def test_checksum_sees_the_numbers_and_not_how_they_are_stored(source, tmp_path):
    write_zarr(tmp_path / "other_chunks", toy_buffer(), chunk=2)
    verify(tmp_path / "other_chunks", source)
    buffer = toy_buffer()
    big_endian = {name: values.astype(values.dtype.newbyteorder(">")) for name, values in buffer.data.items()}
    assert content_sha256(ReplayBuffer(big_endian, buffer.episode_ends), KEYS) == source.sha256
    buffer.data["action"][5, 1] += 1e-6 * buffer.data["action"][5, 1]
    assert content_sha256(buffer, KEYS) != source.sha256


def test_human_pusht_demonstrations_match_their_checksum(pusht_zarr):
    assert verify(pusht_zarr, SOURCES["pusht_lowdim"]).n_episodes == 206


def test_sources_are_complete():
    for task, source in module.SOURCES.items():
        assert source.url.startswith("https://")
        if task.startswith("pusht"):  # the others are published without a checksum
            assert source.keys and len(bytes.fromhex(source.sha256)) == 32, task
