"""What a launcher calls in the process of a cell: runs the command's job, and writes down what became of it."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bac_workbench.console import console
from bac_workbench.errors import clearest, is_users
from bac_workbench.sweeps.outcomes import FAILED, FINISHED, RUNNING, THERE, Records
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.lock import LockedError, wait_for


@dataclass(frozen=True)
class Ended:
    """What a job may return.

    Attributes:
        note: what came of it, in one line for the table of the sweep.
        was_there: it had been finished before, so nothing ran.
    """

    note: str = ""
    was_there: bool = False


#: a job: config, and what else the sweep has for this cell -> Ended or None
Job = Callable[..., Ended | None]

_at_once: int | None = None  # cells that run side by side; None: this process runs no cell


def in_cell() -> bool:
    """Whether this process runs a cell of a sweep."""
    return _at_once is not None


def cells_at_once() -> int:
    """How many runs share this machine with this one, itself included, as far as its sweep knows."""
    return _at_once or 1


@dataclass(frozen=True)
class Cells:
    """The task function of a launcher; it is pickled to the processes of the cells.

    Attributes:
        indices: the cell of each of the launcher's jobs.
        names: what tells the cells apart, for people.
        extras: further arguments of `job`, by cell.
        at_once: cells that share this machine.
        apart: they run in processes of their own, so that each writes to a log.
        home: the user's working directory, which paths of settings are relative to.
        sweep_pid: process of the sweep. Where it is the parent of a cell's, that one ends with it: processes of joblib
            would stay for ever, waiting for more cells.
    """

    job: Job
    indices: Sequence[int]
    names: Sequence[str]
    extras: Sequence[tuple]
    records: Records
    at_once: int
    apart: bool
    home: Path
    sweep_pid: int

    def __call__(self, cfg: DictConfig) -> None:
        global _at_once
        register_resolvers()
        cell = self.indices[HydraConfig.get().job.num]
        os.chdir(self.home)
        if os.getppid() == self.sweep_pid:
            end_with(self.sweep_pid)
        before, _at_once = _at_once, self.at_once
        try:
            with self._output(cell):
                console.print(f"cell {cell + 1} of {len(self.names)}: {self.names[cell]}", style="bold")
                self.records.write(cell, RUNNING)
                began = time.monotonic()
                state, note = self._run(cfg, cell)
                self.records.write(cell, state, note, time.monotonic() - began)
        finally:
            _at_once = before

    @contextlib.contextmanager
    def _output(self, cell: int) -> Iterator[None]:
        if not self.apart:
            yield
            return
        with (
            self.records.log(cell).open("a", buffering=1, encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            yield

    def _run(self, cfg: DictConfig, cell: int) -> tuple[str, str]:
        """State and note. Whoever writes to the cell's folder, a cell of a killed sweep perhaps, is waited for."""
        while True:
            try:
                ended = self.job(copy.deepcopy(cfg), *self.extras[cell]) or Ended()
                return (THERE if ended.was_there else FINISHED), ended.note
            except LockedError as error:
                console.print(f"waiting: {error}", style="yellow")
                wait_for(error.file)
            except SystemExit as error:
                return FAILED, f"it ended with status {error.code}"
            except Exception as error:
                return FAILED, told(error)


@functools.cache  # once in a process
def end_with(parent: int, pause: float = 1.0) -> None:
    """Ends this process soon after its parent, whatever it does; what it has written is complete or taken up again."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(pause)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def told(error: Exception) -> str:
    """Prints an error, with its traceback if it is no user's; returns it in one line."""
    if is_users(error):
        text = str(clearest(error))
        console.print("error:", style="bold red", end=" ")
        console.print(text, markup=False)
        return text
    console.print(traceback.format_exc(), markup=False)
    return f"{type(error).__name__}: {error}"
