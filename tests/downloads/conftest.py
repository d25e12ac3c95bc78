"""A small archive, and a server of it on this machine. The data of the data sets' tests are importable here."""

from __future__ import annotations

import http.server
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from bac_workbench.downloads.sources import DataSource, content_sha256
from tests.downloads.toy_data import FOLDER, KEYS, toy_buffer, write_zarr

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))


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
        return None

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
