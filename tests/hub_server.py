"""A server that speaks as much of the Hugging Face Hub as `huggingface_hub` asks for, on 127.0.0.1, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Repositories, name -> {revision: {path: bytes}}; `main` is the latest, and each commit keeps its files."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)  # sha256 -> content
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Adds a commit with these files over the latest one's; returns its hash."""
        before = self.repositories.setdefault(name, {})
        whole = {**before.get(self.heads.get(name, ""), {}), **files}
        oid = hashlib.sha1(repr((name, len(before), sorted(whole.items()))).encode()).hexdigest()
        before[oid], self.heads[name] = whole, oid
        return oid


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, value: object, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str) -> None:
        self.answer({"error": code}, 404, X_Error_Code=code)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision; None, with the answer sent, where it is not there."""
        if name not in self.hub.repositories:
            return self.missing("RepoNotFound")
        oid = self.hub.heads[name] if revision == "main" else revision
        if oid not in self.hub.repositories[name]:
            return self.missing("RevisionNotFound")
        return oid, self.hub.repositories[name][oid]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/api/models/"):
            user, name, kind, *rest = [*path.removeprefix("/api/models/").split("/"), "revision"][:4] + ["main"]
            parts = path.removeprefix("/api/models/").split("/")
            revision = parts[3] if len(parts) > 3 else "main"
            found = self.files(f"{user}/{name}", revision)
            if found is None:
                return None
            oid, files = found
            if kind == "tree":
                return self.answer([_entry(path, content) for path, content in files.items()])
            siblings = [{"rfilename": path} for path in files]
            return self.answer({"id": f"{user}/{name}", "sha": oid, "siblings": siblings, "private": False})
        parts = path.strip("/").split("/")
        if len(parts) < 5:  # whatever the client also asks for, such as the page of the repository
            return self.missing("EntryNotFound")
        user, name, _, revision, *inside = parts
        found = self.files(f"{user}/{name}", revision)
        if found is None:
            return None
        oid, files = found
        content = files.get("/".join(inside))
        if content is None:
            return self.missing("EntryNotFound")
        return self.answer(content, X_Repo_Commit=oid, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def do_POST(self) -> None:
        path, sent = unquote(urlsplit(self.path).path), self.body()
        self.hub.requests.append(f"POST {path}")
        if path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            if name in self.hub.repositories:
                return self.answer({"error": "exists", "url": f"{self.hub.url}/{name}"}, 409)
            self.hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
            self.hub.commit(name, {".gitattributes": b""})
            return self.answer({"url": f"{self.hub.url}/{name}"})
        if "/preupload/" in path:
            listed = json.loads(sent)["files"]
            modes = [{**item, "uploadMode": _mode(item["path"]), "shouldIgnore": False} for item in listed]
            return self.answer({"files": modes})
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(sent)["objects"]
            actions = [
                {**item, "actions": {"upload": {"href": f"{self.hub.url}/large/{item['oid']}"}}} for item in objects
            ]
            return self.answer({"transfer": "basic", "objects": actions})
        if "/commit/" in path:
            user, name = path.removeprefix("/api/models/").split("/")[:2]
            lines = [json.loads(line) for line in sent.splitlines()]
            oid = self.hub.commit(f"{user}/{name}", dict(filter(None, map(self.added, lines))))
            url = f"{self.hub.url}/{user}/{name}/commit/{oid}"
            return self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})
        return self.answer({}, 200)

    def added(self, line: dict) -> tuple[str, bytes] | None:
        if line["key"] == "file":
            return line["value"]["path"], base64.b64decode(line["value"]["content"])
        return (line["value"]["path"], self.hub.large[line["value"]["oid"]]) if line["key"] == "lfsFile" else None

    def do_PUT(self) -> None:
        content = self.body()
        self.hub.large[self.path.rpartition("/")[2]] = content
        self.answer({})


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".ckpt")) else "regular"


def _entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
    if _mode(path) == "lfs":
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry
