"""One file of robomimic out of a large archive, of which no checksum is published. Served from this machine."""

from __future__ import annotations

import http.server
import re
import threading
import zipfile
from dataclasses import replace

import pytest
from robomimic_data import write_demonstrations

from bac_workbench.commands.download_data import main
from bac_workbench.downloads.datasets import SOURCES, NoChecksumError, download, verify
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.env.robomimic.definition import TASKS

pytest.importorskip("h5py")

SOURCE = SOURCES["can_lowdim_ph"]
FILE = "robomimic/datasets/can/ph/low_dim_abs.hdf5"
OTHER_BYTES = 1 << 20  # of what is not wanted


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one archive in parts; misbehaves on request.

    `ranges` False: serves it only as a whole. `cut`: the connection drops after so many bytes of the part from there
    on.
    """

    body = b""
    ranges = True
    cut: tuple[int, int] | None = None
    sent: list[int]

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked or not self.ranges:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.body)))
            return self.end_headers()
        start = int(asked[1])
        part = self.body[start : int(asked[2]) + 1 if asked[2] else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.cut and start == self.cut[0]:
            part = part[: self.cut[1]]
        self.sent.append(len(part))
        self.wfile.write(part)
        return None

    def log_message(self, *_: object) -> None:
        pass


def pack(folder, compression=zipfile.ZIP_DEFLATED, seed=0):
    """Path of an archive with the wanted file between others."""
    folder.mkdir(exist_ok=True)
    write_demonstrations(folder / "wanted.hdf5", seed=seed)
    with zipfile.ZipFile(folder / "robomimic_lowdim.zip", "w", compression) as file:
        for name in ("lift/ph/low_dim_abs.hdf5", "square/ph/low_dim_abs.hdf5"):
            if "square" in name:
                file.write(folder / "wanted.hdf5", FILE)
            file.writestr(zipfile.ZipInfo(f"robomimic/datasets/{name}"), bytes(OTHER_BYTES))  # stored
    return folder / "robomimic_lowdim.zip"


@pytest.fixture(params=[zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED], ids=["deflated", "stored"])
def archive(request, tmp_path):
    return pack(tmp_path / "served", request.param)


@pytest.fixture
def server(archive):
    """(URL, handler class) of an HTTP server on the loopback interface."""
    handler = type("ArchiveHandler", (Handler,), {"body": archive.read_bytes(), "sent": []})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/{archive.name}", handler
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def packed_bytes(archive):
    """Where the wanted file starts in the archive, and how many bytes it has there."""
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo(FILE)
    return info.header_offset + 30 + len(FILE), info.compress_size


def wanted(archive):
    return (archive.parent / "wanted.hdf5").read_bytes()


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_only_the_wanted_file_is_transferred(server, archive, tmp_path):
    url, handler = server
    seen = []
    path = download(SOURCE, tmp_path / "data", url, lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "data" / FILE and path.read_bytes() == wanted(archive)
    assert files(tmp_path / "data") == ["low_dim_abs.hdf5", "low_dim_abs.hdf5.checksum.json"]
    assert sum(handler.sent) < OTHER_BYTES and seen[-1][0] == seen[-1][1]
    assert load_robomimic_lowdim(path, "can", Windows(6))[0] is not None


def test_a_dropped_connection_is_resumed(server, archive, tmp_path):
    url, handler = server
    start, size = packed_bytes(archive)
    handler.cut = start, 5000
    with pytest.raises(DatasetError, match=f"closed after 5,000 of {size:,} bytes.* resume"):
        download(SOURCE, tmp_path / "data", url)
    assert not (tmp_path / "data" / FILE).exists()
    handler.cut, handler.sent[:] = None, []
    assert download(SOURCE, tmp_path / "data", url).read_bytes() == wanted(archive)
    assert handler.sent[-1] == size - 5000


def test_an_archive_that_changes_in_between_does_not_mix(server, archive, tmp_path):
    url, handler = server
    handler.cut = packed_bytes(archive)[0], 5000
    with pytest.raises(DatasetError, match="closed after"):
        download(SOURCE, tmp_path / "data", url)
    changed = pack(tmp_path / "changed", seed=1)
    handler.body, handler.cut = changed.read_bytes(), None
    assert download(SOURCE, tmp_path / "data", url).read_bytes() == wanted(changed)


def test_an_archive_put_in_place_by_hand_needs_no_network_and_stays(archive, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / archive.name).write_bytes(archive.read_bytes())
    path = download(SOURCE, tmp_path / "data", f"http://127.0.0.1:9/{archive.name}")
    assert path.read_bytes() == wanted(archive)
    assert files(tmp_path / "data") == ["low_dim_abs.hdf5", "low_dim_abs.hdf5.checksum.json", archive.name]


def test_a_server_that_sends_no_parts_is_said(server, tmp_path):
    url, handler = server
    handler.ranges = False
    with pytest.raises(
        DatasetError, match="does not send parts of a file. Fetch the archive and put it below the data"
    ):
        download(SOURCE, tmp_path / "data", url)


def test_no_server_and_no_such_file(archive, tmp_path):
    with pytest.raises(DatasetError, match="cannot download .*as robomimic_lowdim.zip"):
        download(SOURCE, tmp_path / "data", "http://127.0.0.1:9/robomimic_lowdim.zip")
    with pytest.raises(DatasetError, match="has no robomimic/datasets/can/mh/low_dim_abs.hdf5 in it"):
        download(SOURCES["can_lowdim_mh"], tmp_path / "data", archive.as_uri())
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(DatasetError, match="not a complete zip archive"):
        download(SOURCE, tmp_path / "data", archive.as_uri())
    assert files(tmp_path) == ["robomimic_lowdim.zip", "wanted.hdf5"]


def test_damage_on_the_way_is_found(archive, tmp_path):
    body = bytearray(archive.read_bytes())
    start, size = packed_bytes(archive)
    body[start + size // 2] ^= 0x40
    archive.write_bytes(body)
    with pytest.raises(DatasetError, match="is damaged.*\nDelete .*low_dim_abs.hdf5.*and run the same command again"):
        download(SOURCE, tmp_path / "data", archive.as_uri())
    assert not (tmp_path / "data" / FILE).exists()


def test_later_damage_is_found_by_the_recorded_checksum(archive, tmp_path):
    path = download(SOURCE, tmp_path / "data", archive.as_uri())
    verify(path, SOURCE)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="holds other data than expected"):
        verify(path, SOURCE)
    SOURCE.record(path).unlink()
    with pytest.raises(NoChecksumError, match="no download recorded one in low_dim_abs.hdf5.checksum.json"):
        verify(path, SOURCE)


def test_every_task_has_its_file():
    for task in TASKS.values():
        for humans in task.max_steps:
            for name, archive, file in [("", "image", "image"), ("_lowdim", "lowdim", "low_dim")]:
                source = SOURCES[f"{task.name}{name}_{humans}"]
                assert source.url.endswith(f"/robomimic_{archive}.zip")
                assert source.folder == f"robomimic/datasets/{task.name}/{humans}/{file}_abs.hdf5"
                assert source == replace(source, sha256=None)


def test_the_command(archive, tmp_path, capsys):
    arguments = ["task=can_lowdim_ph", f"url={archive.as_uri()}", f"data_dir={tmp_path}/data"]
    assert main(arguments) == 0
    assert "complete, content sha256" in capsys.readouterr().out
    assert main([*arguments, "verify=true"]) == 0
    assert "low_dim_abs.hdf5: verified" in capsys.readouterr().out
    (tmp_path / "data" / FILE).write_bytes(b"x")
    assert main(arguments) == 1
    assert "download it again: bac data download task=can_lowdim_ph" in capsys.readouterr().err
