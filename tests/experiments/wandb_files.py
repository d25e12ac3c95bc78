"""Reads what an offline run of Weights & Biases left: records of its protocol in the container of LevelDB's logs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAGIC, BLOCK = b":W&B", 32768
HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def messages(path: Path) -> Iterator[bytes]:
    """The records of a .wandb file; a long one is cut into pieces at the ends of blocks."""
    data = path.read_bytes()
    assert data[:4] == MAGIC, f"{path} is no file of wandb's"
    place, pieces = 7, b""
    while place + HEADER.size <= len(data):
        if BLOCK - place % BLOCK < HEADER.size:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        piece = data[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        pieces = piece if kind in (FULL, FIRST) else pieces + piece
        if kind in (FULL, LAST):
            yield pieces


class OfflineRun:
    """One offline folder.

    Attributes:
        run: the last record about the run itself.
        summary, config: what was set, by name.
        history: a record for each logged line.
        exit_code: None if the run did not end.
    """

    def __init__(self, folder: Path):
        from wandb.proto.wandb_internal_pb2 import Record

        self.folder, self.summary, self.config = folder, {}, {}
        self.history: list[dict[str, Any]] = []
        self.run: Any = None
        self.exit_code: int | None = None
        (path,) = folder.glob("*.wandb")
        for content in messages(path):
            record = Record.FromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= values(record.run.config.update)
            elif kind == "summary":
                self.summary |= values(record.summary.update)
            elif kind == "history":
                self.history.append(values(record.history.item))
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    def table(self, key: str) -> dict[str, Any]:
        """The stored table of this name: {"columns", "data"}."""
        (row,) = (row[key] for row in self.history if key in row)
        return json.loads((self.folder / "files" / row["path"]).read_text())


def values(items: Any) -> dict[str, Any]:
    """Name -> value, nested as it was logged."""
    found: dict[str, Any] = {}
    for item in items:
        *groups, name = item.nested_key or [item.key]
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = json.loads(item.value_json)
    return found


def offline_runs(folder: Path) -> list[OfflineRun]:
    """From the first to the last; ends wandb's service, which may not have written everything yet."""
    import wandb

    wandb.teardown()
    paths = sorted(folder.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime_ns)
    return [OfflineRun(path) for path in paths]
