"""A stand-in for the server of Weights & Biases: a login, one project, and reports that are kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VIEWER = {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
PROJECT = {
    "id": "2",
    "name": "bac",
    "entityName": "me",
    "createdAt": "2026-01-01T00:00:00Z",
    "isBenchmark": False,
    "user": None,
}


def answer(query: str, variables: dict[str, Any], saved: list[dict[str, Any]]) -> dict[str, Any]:
    """The data of a query; a saved report is added to `saved`."""
    if "upsertView" in query:
        saved.append(variables)
        owner = {"id": "2", "name": variables["projectName"], "entityName": variables["entityName"]}
        kept = {name: variables[name] for name in ("type", "name", "displayName", "description", "spec")}
        view = {"id": "view1", "project": owner, "updatedAt": "2026-01-01T00:00:00", **kept}
        return {"upsertView": {"view": view, "inserted": True}}
    if "models(" in query:
        page = {"endCursor": None, "hasNextPage": False}
        return {"models": {"edges": [{"node": PROJECT, "cursor": "a"}], "pageInfo": page}}
    return {"viewer": VIEWER}


@contextmanager
def server(accepts: bool = True) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and the reports that were saved.

    Args:
        accepts: whether a login is accepted.
    """
    saved: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            status, body = 404, b""  # usage statistics and the like
            if self.path == "/graphql" and not accepts:
                status, body = 401, b'{"errors": [{"message": "no such key"}]}'
            elif self.path == "/graphql":
                asked = json.loads(content)
                data = answer(asked["query"], asked.get("variables") or {}, saved)
                status, body = 200, json.dumps({"data": data}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", saved
        listening.shutdown()
