"""The interleaved timing run of a task: what it times, and whether that is stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from bac_workbench.benchmark.run import benchmark_settings, check_folder
from bac_workbench.provenance import hardware
from bac_workbench.reproducing.cells import Cell
from bac_workbench.settings import check
from bac_workbench.settings.reproducing import Reproduce
from bac_workbench.settings.schema import schema_of
from bac_workbench.setup.experiment import load_experiment

#: settings that are chosen here, or that mean something else for a benchmark
NOT_HANDED_ON = ("methods", "runtimes", "batch", "seed", "output_dir", "overwrite", "wandb", "n_chunks")


@dataclass(frozen=True)
class Timings:
    """One run of `bac benchmark`.

    Attributes:
        folder: holds the task's evaluations.
        overrides: what the command is told.
    """

    task: str
    folder: Path
    overrides: tuple[str, ...]

    @classmethod
    def of(cls, settings: Reproduce, cells: Sequence[Cell], others: Sequence[str]) -> Timings:
        """Of the methods of one policy; all trainings of a task are of one size and take the same time."""
        source, folder = cells[0].source, cells[0].folder.parent
        methods = list(dict.fromkeys(cell.method for cell in cells))
        quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
        runtimes = dict.fromkeys(["reference", settings.runtime])
        known = schema_of("benchmark").model_fields
        handed_on = [
            text
            for text in others
            if (name := text.partition("=")[0].lstrip("+~").partition(".")[0]) in known and name not in NOT_HANDED_ON
        ]
        overrides = [
            *source.settings,
            f"methods=[{','.join(methods)}]",
            f"runtimes=[{','.join(runtimes)}]",
            f"n_chunks={settings.n_chunks}",
            f'output_dir="{quoted}"',
            *handed_on,
        ]
        return cls(source.task.choice, folder, tuple(overrides))

    def config(self, *further: str) -> DictConfig:
        """Composed and checked, with texts as they were typed."""
        overrides = [*self.overrides, *further]
        cfg = compose("benchmark", overrides)
        check(cfg, "benchmark", overrides)
        return cfg

    def stored(self) -> str | None:
        """What is to be said of the stored times of these very methods; None: they have to be measured.

        Times of other methods are of another run: they are measured again, so that all are from one.

        Raises:
            ConfigError: there are times of another policy, or damaged ones.
        """
        path = self.folder / "benchmark_info.json"
        if not path.exists() or not (self.folder / "benchmark.json").exists():
            return None
        experiment = load_experiment(check(self.config(), "benchmark", list(self.overrides)), needs_simulator=False)
        wanted = benchmark_settings(experiment)
        check_folder(self.folder, {name: value for name, value in wanted.items() if name != "methods"}, False)
        provenance: dict[str, Any] = json.loads(path.read_bytes())["provenance"]
        if provenance.get("methods") != wanted["methods"]:
            return None
        here, there = hardware(experiment.device), provenance.get("hardware")
        where = "" if here == there else f" on another machine ({there}): remove {path} to measure them here"
        return f"{self.task}: times are there, measured{where or ' on this machine'}"
