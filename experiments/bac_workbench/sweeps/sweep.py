"""Runs cells on a launcher of Hydra. No cell stops another one, whatever becomes of its process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from bac_workbench.console import console
from bac_workbench.sweeps.cell import Cells, Job
from bac_workbench.sweeps.launchers import Share, cancel, set_up, shares, wait_for_others
from bac_workbench.sweeps.outcomes import FAILED, Outcome, Records
from bac_workbench.sweeps.report import cell_names, ended_line
from diffusion_policy.common.config import ConfigError

POLL_SECONDS = 0.5


class Interrupted(Exception):
    """Ctrl-C; what has finished is in the outcomes."""

    def __init__(self, outcomes: list[Outcome | None]):
        super().__init__("interrupted")
        self.outcomes = outcomes


def composed(hydra: Hydra, command: str, overrides: Sequence[str]) -> DictConfig:
    """The config that the launcher is set up from: that of a cell, with Hydra's own settings."""
    cfg = hydra.compose_config(config_name=command, overrides=list(overrides), run_mode=RunMode.MULTIRUN)
    if OmegaConf.select(cfg, "hydra.sweeper.params"):
        raise ConfigError("hydra.sweeper.params: write what is swept over on the command line, as <setting>=1,2,3")
    return cfg


def without_hydras(overrides: Sequence[str]) -> list[str]:
    """The overrides of a cell without those of hydra.*, which are the same for all and in `composed`."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [text for text, override in zip(overrides, parsed) if not override.is_hydra_override()]


@dataclass
class Sweep:
    """Cells of one command, and the launcher that runs them.

    Attributes:
        cfg: see `composed`.
        cells: overrides of each.
        job: runs a cell, in its process.
        extras: further arguments of `job`, by cell.
        names: of the cells, for people.
    """

    hydra: Hydra
    cfg: DictConfig
    cells: list[list[str]]
    job: Job
    extras: Sequence[tuple]
    names: Sequence[str]

    @classmethod
    def over(cls, hydra: Hydra, command: str, cells: Sequence[Sequence[str]], job: Job) -> Sweep:
        """Over the combinations of what a command line gives, Hydra's own settings among them."""
        own = [without_hydras(cell) for cell in cells]
        return cls(hydra, composed(hydra, command, cells[0]), own, job, [()] * len(own), cell_names(own))

    def run(self) -> tuple[list[Outcome | None], Records]:
        """Runs all cells; the records' folder is left to the caller.

        A launcher that breaks down (a cell was killed, say, and joblib gave its other processes up) is started again:
        first with the cells that had not begun, then with each that was running by itself, so that another breakdown
        names its cell.

        Raises:
            Interrupted: Ctrl-C.
        """
        records = Records.new(len(self.cells))
        share = set_up(self.cfg, len(self.cells), records)
        console.print(f"{len(self.cells)} cells, {share.line}")
        pending = chunks(range(len(self.cells)), share.batch)
        try:
            with self._announced(records, share):
                while pending:
                    batch = pending.pop(0)
                    error = self._launch(batch, share, records)
                    left = records.still_open(batch)
                    if not left:
                        continue
                    wait_for_others(share.name, records)
                    left = records.still_open(batch)
                    begun = [cell for cell in left if records.read(cell) is not None]
                    if len(batch) == 1 or not begun:
                        for cell in left:
                            records.write(cell, FAILED, why(error, bool(begun)))
                    else:
                        waiting = [cell for cell in left if cell not in begun]
                        pending = [*chunks(waiting, share.batch), *([cell] for cell in begun), *pending]
        except KeyboardInterrupt:
            cancel(share.name, records)
            raise Interrupted(records.all()) from None
        return records.all(), records

    def _launch(self, batch: Sequence[int], share: Share, records: Records) -> Exception | None:
        """Hands cells to the launcher; returns what it stopped with."""
        task = Cells(
            self.job,
            batch,
            self.names,
            self.extras,
            records,
            share.at_once,
            share.apart,
            home=Path.cwd(),
            sweep_pid=os.getpid(),
        )
        context = HydraContext(config_loader=self.hydra.config_loader, callbacks=Callbacks(self.cfg))
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=self.cfg)
        overrides = [[*self.cells[cell], *shares(self.cfg, self.cells[cell], share)] for cell in batch]
        try:
            launcher.launch(overrides, initial_job_idx=0)
        except Exception as error:  # of the launcher: those of cells are in their outcomes
            return error
        return None

    @contextlib.contextmanager
    def _announced(self, records: Records, share: Share) -> Iterator[None]:
        """Says what becomes of cells in other processes, as it comes."""
        if not share.apart:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            said: set[int] = set()
            while True:
                last = over.is_set()
                for cell in sorted(set(range(records.total)) - said):
                    outcome = records.read(cell)
                    if outcome is not None and outcome.ended:
                        said.add(cell)
                        console.print(ended_line(len(said), self.names, cell, outcome), markup=False)
                if last:
                    return
                over.wait(POLL_SECONDS)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def chunks(cells: Sequence[int], size: int | None) -> list[list[int]]:
    cells = list(cells)
    return [cells[start : start + (size or len(cells))] for start in range(0, len(cells), size or max(1, len(cells)))]


def why(error: Exception | None, begun: bool) -> str:
    """One line on a cell that left no outcome."""
    if error is None:
        return "its process ended without a word: it was killed, or ran out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = "its process died" if begun else "the launcher could not run it"
    return f"{what}: {type(error).__name__}: {lines[0] if lines else ''}"
