"""The three published trainings of a task, by `train=` and `checkpoint_type=`: found, or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bac_workbench.downloads.checkpoints import LATEST, best_name, get_checkpoint, has_score, published_names
from bac_workbench.downloads.command import download_progress
from bac_workbench.locations import SHIPPED
from bac_workbench.setup.task_files import TaskFile
from diffusion_policy.common.config import CheckpointError, ConfigError

BEST, LAST = "max", "avg"
MEANINGS = {
    BEST: "the file with the highest score in its name",
    LAST: f"{LATEST}, for the published average of the last checkpoints",
}


@dataclass(frozen=True)
class Training:
    """Which published checkpoint is meant.

    Attributes:
        train: 0, 1 or 2; None: whichever is there, 0 if it is downloaded.
        kind: `BEST` or `LAST`; None: whichever is there, `LAST` if it is downloaded.
    """

    train: int | None = None
    kind: str | None = None

    @property
    def chosen(self) -> bool:
        return self.train is not None or self.kind is not None

    @property
    def words(self) -> str:
        """As on a command line."""
        parts = {"train": self.train, "checkpoint_type": self.kind}
        return " ".join(f"{name}={value}" for name, value in parts.items() if value is not None)

    @property
    def tag(self) -> str:
        """What the names of results say of it: train1-max."""
        train = [] if self.train is None else [f"train{self.train}"]
        return "-".join([*train, *([] if self.kind is None else [self.kind])])

    def find(self, file: TaskFile) -> list[Path]:
        """The checkpoints that are here: in the working directory, or else where this project is."""
        for root in (Path(), SHIPPED):
            found = [
                path
                for train in ((0, 1, 2) if self.train is None else (self.train,))
                for folder in file.folders(root / "checkpoint", train)
                for path in self._of_kind(sorted(folder.glob("*.ckpt")))
            ]
            if found:
                return found
        return []

    def _of_kind(self, paths: list[Path]) -> list[Path]:
        names = {path.name: path for path in paths}
        if self.kind is None:
            return paths
        if self.kind == LAST:
            return [names[LATEST]] if LATEST in names else []
        scored = [name for name in names if has_score(name)]
        return [names[best_name(scored)]] if scored else []

    def download(self, file: TaskFile) -> Path:
        """Gets it from the authors' server, or finishes that; its checksum is recorded the first time.

        Raises:
            CheckpointError: nothing is published for the task, or what came is no checkpoint.
            DatasetError: it cannot be downloaded, or is another file than before.
        """
        if file.original is None:
            raise CheckpointError(
                f"download=true: the original project publishes no checkpoint of task {file.choice}: leave it out"
            )
        train = self.train or 0
        url, folder = file.url(train), file.folder(train=train)
        name = best_name(published_names(url)) if self.kind == BEST else LATEST
        with download_progress() as progress:
            bar = progress.add_task(f"{file.choice} train_{train} {name}", total=None)
            _, digest = get_checkpoint(
                url, folder, name, on_progress=lambda done, total: progress.update(bar, completed=done, total=total)
            )
        path = folder / name
        print(f"downloaded {path} ({path.stat().st_size / 1e6:,.1f} MB, sha256 {digest}, recorded beside it)")
        return path


def find_training(wanted: Training, file: TaskFile, download: bool) -> Path:
    """The checkpoint that `train=` and `checkpoint_type=` name.

    Raises:
        UserError: it is not here, or several are; the message says what to do.
    """
    if file.original is None:
        raise CheckpointError(
            f"{wanted.words}: the original project publishes no trainings of task {file.choice}: leave it out"
        )
    found = wanted.find(file)
    if len(found) == 1:
        return found[0]
    if not found and download:
        return wanted.download(file)
    if not found:
        places = " or ".join(str(path.parents[1]) for path in file.folders(train=wanted.train or 0))
        raise CheckpointError(
            f"task {file.choice} has no checkpoint here for {wanted.words} (looked in {places}): add download=true, "
            f"which gets it from {file.url(wanted.train or 0)}/, or put the file there under its own name"
        )
    missing = [f"train={name}" for name in sorted({train_of(path) for path in found})] if wanted.train is None else []
    kinds = [f"checkpoint_type={kind} ({text})" for kind, text in MEANINGS.items()] if wanted.kind is None else []
    raise CheckpointError(
        f"task {file.choice} has {len(found)} checkpoints here for {wanted.words}: add "
        + " and ".join(" or ".join(options) for options in (missing, kinds) if options)
    )


def train_of(path: Path) -> int:
    """1 of .../train_1/checkpoints/latest.ckpt."""
    return int(path.parents[1].name.removeprefix("train_"))


def refuse_both(wanted: Training, checkpoint: str | None) -> None:
    """`checkpoint=` names a file, and `train=` and `checkpoint_type=` another."""
    if wanted.chosen:
        raise ConfigError(
            f"{wanted.words} chooses among the published checkpoints of the task, and checkpoint={checkpoint} names "
            "one: leave one of them out"
        )
