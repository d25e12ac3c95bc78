"""What became of each cell, in files: one a cell, which the process that ran it writes and the sweep reads."""

from __future__ import annotations

import json
import os
import shutil
import socket
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from diffusion_policy.common.files import write_json

RUNNING, FINISHED, THERE, FAILED = "running", "finished", "already there", "failed"
LONGEST = 200  # characters of a note; a log has all of it
FOLDER = Path("results") / ".sweeps"


@dataclass(frozen=True)
class Outcome:
    """Of one cell.

    Attributes:
        state: RUNNING, FINISHED, THERE (finished before, so nothing ran) or FAILED.
        note: what came of it, or its error; one line.
        seconds: that it took.
        pid, host: of the process that runs it.
    """

    state: str
    note: str = ""
    seconds: float = 0.0
    pid: int = 0
    host: str = ""

    @property
    def ended(self) -> bool:
        return self.state != RUNNING


class Records:
    """The folder of one sweep: `<cell>.json` with its outcome and, where cells run side by side, `<cell>.log`."""

    def __init__(self, folder: Path, total: int):
        self.folder, self.total = folder, total

    @classmethod
    def new(cls, total: int) -> Records:
        folder = FOLDER.resolve() / f"{time.strftime('%Y%m%d-%H%M%S')}-{socket.gethostname()}-{os.getpid()}"
        folder.mkdir(parents=True)
        return cls(folder, total)

    def log(self, cell: int) -> Path:
        return self.folder / f"{cell + 1}.log"

    def write(self, cell: int, state: str, note: str = "", seconds: float = 0.0) -> Outcome:
        line = textwrap.shorten(note, LONGEST, placeholder=" ...")
        outcome = Outcome(state, line, round(seconds, 1), os.getpid(), socket.gethostname())
        write_json(self.folder / f"{cell + 1}.json", asdict(outcome))
        return outcome

    def read(self, cell: int) -> Outcome | None:
        """None: it has not begun."""
        try:
            return Outcome(**json.loads((self.folder / f"{cell + 1}.json").read_bytes()))
        except FileNotFoundError:
            return None

    def all(self) -> list[Outcome | None]:
        return [self.read(cell) for cell in range(self.total)]

    def still_open(self, cells: Sequence[int]) -> list[int]:
        """Those of `cells` that have no outcome yet."""
        return [cell for cell in cells if (outcome := self.read(cell)) is None or not outcome.ended]

    def running(self) -> list[Outcome]:
        return [outcome for outcome in self.all() if outcome is not None and not outcome.ended]

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
