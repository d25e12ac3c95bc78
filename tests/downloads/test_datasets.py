"""Downloading demonstrations: resume, damage, checksum. Everything is served from this machine."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from bac_workbench.downloads import datasets as module
from bac_workbench.downloads.datasets import SOURCES, download, verify
from bac_workbench.downloads.fetch import fetch
from bac_workbench.downloads.sources import ArchiveError, DataSource, FileSource, content_sha256, unpack
from diffusion_policy.dataset import limits
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer

KEYS = ("keypoint", "state", "action")
FOLDER = "toy/replay.zarr"


def toy_buffer() -> ReplayBuffer:
    rows = np.arange(12, dtype=np.float32)
    data = {"keypoint": rows.reshape(6, 1, 2), "state": rows[:6, None], "action": rows.reshape(6, 2)}
    return ReplayBuffer(data, np.array([2, 6]))


def write_zarr(path: Path, buffer: ReplayBuffer, chunk: int = 3) -> None:
    zarr.open_group(str(path), mode="w")
    for name, values in [
        *((f"data/{k}", v) for k, v in buffer.data.items()),
        ("meta/episode_ends", buffer.episode_ends),
    ]:
        array = zarr.open_array(
            str(path / name), mode="w", shape=values.shape, dtype=values.dtype, chunks=(chunk, *values.shape[1:])
        )
        array[:] = values


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """toy.zip with one replay buffer and a file that does not belong to it."""
    write_zarr(tmp_path / "made" / FOLDER, toy_buffer())
    path = tmp_path / "served" / "toy.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for item in sorted((tmp_path / "made").rglob("*")):
            file.write(item, item.relative_to(tmp_path / "made"))
        file.writestr("toy/other.txt", "not wanted")
    return path


@pytest.fixture
def source(archive: Path) -> DataSource:
    return DataSource(archive.as_uri(), FOLDER, KEYS, content_sha256(toy_buffer(), KEYS))


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one body; `honour_range` and `cut_at` (bytes until the connection drops) misbehave on request."""

    body = b""
    honour_range = True
    cut_at: int | None = None
    say_size = False  # of the file, when asked for what lies behind it
    requested: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.requested.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked and self.honour_range else 0
        if self.path != "/toy.zip":
            return self.send_error(404)
        if start and start >= len(self.body):
            if not self.say_size:
                return self.send_error(416)
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.body) - start))
        self.end_headers()
        self.wfile.write(self.body[start : self.cut_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(archive: Path):
    """(URL, handler class) of an HTTP server on the loopback interface."""
    handler = type("ToyHandler", (Handler,), {"body": archive.read_bytes(), "requested": []})
    httpd = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/toy.zip", handler
    httpd.shutdown()
    httpd.server_close()
    thread.join()


# ---- fetch ----
def test_fetch_reports_progress_and_leaves_only_the_file(server, tmp_path):
    url, handler = server
    seen = []
    fetch(url, tmp_path / "new" / "toy.zip", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "new" / "toy.zip").read_bytes() == handler.body
    assert seen[-1] == (len(handler.body), len(handler.body))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["toy.zip"]


def test_fetch_resumes_after_a_dropped_connection(server, tmp_path):
    url, handler = server
    handler.cut_at = 100
    with pytest.raises(DatasetError, match="closed after 100 of .* resume"):
        fetch(url, tmp_path / "toy.zip")
    assert not (tmp_path / "toy.zip").exists()
    handler.cut_at = None
    fetch(url, tmp_path / "toy.zip")
    assert handler.requested == [None, "bytes=100-"]
    assert (tmp_path / "toy.zip").read_bytes() == handler.body


def test_fetch_starts_over_when_the_server_ignores_the_range(server, tmp_path):
    url, handler = server
    handler.honour_range = False
    (tmp_path / "toy.zip.part").write_bytes(b"x" * 50)
    fetch(url, tmp_path / "toy.zip")
    assert (tmp_path / "toy.zip").read_bytes() == handler.body


def test_fetch_accepts_a_part_that_was_complete(server, tmp_path):
    url, handler = server
    (tmp_path / "toy.zip.part").write_bytes(handler.body)
    fetch(url, tmp_path / "toy.zip")
    assert (tmp_path / "toy.zip").read_bytes() == handler.body


def test_fetch_without_a_server_says_what_to_do(server, tmp_path):
    url, _ = server
    with pytest.raises(DatasetError, match="answered 404"):
        fetch(url.replace("toy.zip", "nothing.zip"), tmp_path / "nothing.zip")
    with pytest.raises(DatasetError, match="cannot download .* put it at"):
        fetch("http://127.0.0.1:9/toy.zip", tmp_path / "toy.zip")
    assert list(tmp_path.glob("*.zip*")) == []


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


@pytest.mark.parametrize(
    "url",
    [
        "abc",
        "5",
        "http://",
        "https:///x",
        "ftp://x.org/a.zip",
        "http://[::1",
        "http://x.org:abc/a.zip",
        "http://x.org/a b.zip",
        "file://",
        "",
        5,
        None,
    ],
)
def test_what_is_no_address_is_refused(tmp_path, url):
    with pytest.raises(DatasetError, match="is no address of a file: use https://"):
        fetch(url, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_longer_than_the_file_is_dropped(server, tmp_path):
    url, handler = server
    handler.say_size = True
    (tmp_path / "toy.zip.part").write_bytes(handler.body + b"more")
    with pytest.raises(DatasetError, match="was of another file and is removed"):
        fetch(url, tmp_path / "toy.zip")
    fetch(url, tmp_path / "toy.zip")
    assert (tmp_path / "toy.zip").read_bytes() == handler.body


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
