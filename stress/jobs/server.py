"""A slow file server on this machine, in a process of its own, for downloads that can be interrupted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIECE, PAUSE = 16_384, 0.02  # bytes and seconds: about 0.8 MB/s


class Handler(BaseHTTPRequestHandler):
    """Files of `folder`, whole or from a byte on."""

    folder: Path

    def do_GET(self) -> None:
        path = self.folder / Path(self.path).name
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, len(content)) if asked and asked[2] else len(content)
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the other side was killed
            for at in range(start, stop, PIECE):
                self.wfile.write(content[at : min(at + PIECE, stop)])
                time.sleep(PAUSE)

    def log_message(self, *_) -> None:
        """Nothing: a killed client is not worth a line."""


class Server:
    """Serves `<inputs>/served` until it is closed."""

    def __init__(self, inputs: Path):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"folder": inputs / "served"}))
        (inputs / "port").write_text(str(server.server_port))
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                server.serve_forever()
            finally:
                os._exit(0)
        server.socket.close()

    @staticmethod
    def address(inputs: Path) -> str:
        return f"http://127.0.0.1:{(inputs / 'port').read_text()}"

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
