"""Tasks in processes of their own, several at once; what they give comes back as JSON."""

from __future__ import annotations

import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stress.findings import Finding, Findings, Row
from stress.patience import naps

FOREVER = 24 * 3600  # seconds; a task limits itself
Task = Callable[[Findings], Row]


def spread(tasks: Sequence[Task], jobs: int, scratch: Path, findings: Findings) -> list[Row]:
    """Runs all tasks, `jobs` at once, in forks; their rows in the order of the tasks.

    Raises:
        RuntimeError: a task failed by itself; the message is its traceback.
    """
    folder = scratch / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[int, Row] = {}
    running: dict[int, int] = {}
    waiting = list(range(len(tasks)))
    try:
        for _ in naps(FOREVER):
            while waiting and len(running) < jobs:
                number = waiting.pop(0)
                running[forked(lambda number=number: _given(tasks[number], findings), folder / f"{number}.json")] = (
                    number
                )
            if not running:
                break
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in running:
                number = running.pop(pid)
                given = received(folder / f"{number}.json", status)
                rows[number] = Row(**given["row"])
                findings.take_over([Finding(**item) for item in given["findings"]])
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(folder, ignore_errors=True)
    return [rows[number] for number in sorted(rows)]


def _given(task: Task, findings: Findings) -> dict[str, Any]:
    own = Findings(findings.folder)
    row = task(own)
    return {"row": asdict(row), "findings": [asdict(finding) for finding in own.all]}


def forked(work: Callable[[], Any], answer: Path, output: Path | None = None) -> int:
    """The process id of a fork that runs `work` and writes what it returns, or an error's traceback, to `answer`."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        if output is not None:
            log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
        answer.write_text(json.dumps({"value": work()}))
        status = 0
    except BaseException as error:
        answer.write_text(
            json.dumps({"error": type(error).__name__, "text": str(error), "traceback": traceback.format_exc()})
        )
    finally:
        os._exit(status)


def received(answer: Path, status: int) -> Any:
    """What a fork returned. Raises RuntimeError if it failed or was killed."""
    given = json.loads(answer.read_text()) if answer.exists() else {}
    if "value" not in given:
        raise RuntimeError(
            f"a task ended with exit status {os.waitstatus_to_exitcode(status)}\n{given.get('traceback', '')}"
        )
    return given["value"]
