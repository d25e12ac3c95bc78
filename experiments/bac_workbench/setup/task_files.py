"""The files of config/task/, as far as checkpoints are concerned: where a task's own and its published ones are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from bac_workbench.locations import CONFIG, SHIPPED

SERVER = "https://diffusion-policy.cs.columbia.edu/data/experiments"  # Chi et al. 2023, the authors' site
METHOD = "diffusion_policy_transformer"


@dataclass(frozen=True)
class TaskFile:
    """A file of config/task/.

    Attributes:
        choice: how a command line names it, task=<choice>.
        name: the task's name in paths and results.
        original: folder of the published checkpoints of this task below `SERVER`, None if there are none.
    """

    choice: str
    name: str
    original: str | None

    @property
    def released(self) -> Path | None:
        """The folder of the task in the released BAC project, below checkpoint/: can_ph, low_dim/kitchen."""
        return None if self.original is None else Path(self.original.removeprefix("image/"))

    def url(self, train: int = 0) -> str:
        """The folder of the checkpoints of one training, of which there are three: 0, 1 and 2."""
        return f"{SERVER}/{self.original}/{METHOD}/train_{train}/checkpoints"

    def folder(self, root: str | Path = "checkpoint", train: int = 0) -> Path:
        """Where downloaded checkpoints of one training are kept: below the task, as on the server."""
        return self.folders(root, train)[0]

    def folders(self, root: str | Path = "checkpoint", train: int = 0) -> list[Path]:
        """`folder`, and where the released BAC project keeps them."""
        names = dict.fromkeys([Path(self.name), *([] if self.released is None else [self.released])])
        return [Path(root) / name / METHOD / f"train_{train}" / "checkpoints" for name in names]

    def shipped(self) -> Path:
        """Where a checkpoint of this project is, if there is one (`task.checkpoint` of every config)."""
        return Path("checkpoint") / self.name / "ddpm100"

    def downloaded(self) -> list[Path]:
        """Original checkpoints that are here: in the working directory, or else where this project is."""
        for root in (Path(), SHIPPED):
            folders = [folder.parents[1] for folder in self.folders(root / "checkpoint")]
            if found := [path for folder in folders for path in sorted(folder.glob("train_*/checkpoints/*.ckpt"))]:
                return found
        return []


def task_files() -> dict[str, TaskFile]:
    """All tasks by choice.

    `original` counts in the file itself only: variants of a task have other checkpoints, or none.
    """
    files = {}
    for path in sorted((CONFIG / "task").glob("*.yaml")):
        content = yaml.safe_load(path.read_text()) or {}
        files[path.stem] = TaskFile(path.stem, content.get("name", path.stem), content.get("original"))
    return files


def task_file(name: str) -> TaskFile:
    """The file of the task that is called `name` in paths and results."""
    return next((file for file in task_files().values() if file.name == name), TaskFile(name, name, None))
