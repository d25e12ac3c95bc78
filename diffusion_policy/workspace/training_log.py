"""`log.jsonl`: one line per logged step, each step once however often a training was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusion_policy.common.files import atomic_path

LOG_FILE = "log.jsonl"


def append_record(folder: Path, record: dict[str, Any]) -> None:
    """Adds a line to the log of an existing folder. Raises ValueError for numbers that JSON does not have."""
    line = json.dumps(record, allow_nan=False) + "\n"
    with open(folder / LOG_FILE, "a", encoding="utf-8") as file:
        file.write(line)


def keep_until(folder: Path, step: int) -> int:
    """Removes what the log says of steps after `step`, which will be made again, and lines that a kill cut off.

    Returns how many lines were removed. A log that needs no change is not touched.
    """
    path = folder / LOG_FILE
    if not path.exists():
        return 0
    lines = path.read_bytes().split(b"\n")
    rest = lines.pop()  # empty, if the last line is complete
    kept, seen = [], set()
    for line in lines:
        record = _record(line)
        if record is None or record["step"] > step:
            continue
        key = record["step"], "rollout_score" in record
        if key not in seen:  # an earlier version repeated steps
            seen.add(key)
            kept.append(line)
    removed = len(lines) - len(kept) + bool(rest)
    if removed:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
    return removed


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_record = isinstance(record, dict) and isinstance(record.get("step"), int)
    return record if is_record else None
