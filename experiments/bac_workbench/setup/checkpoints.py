"""Which checkpoint the settings mean, and where to get one: shipped with this project, or published by the original."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from bac_workbench.locations import CONFIG, SHIPPED, only_in_a_checkout, shipped
from bac_workbench.settings.task import Task
from bac_workbench.setup.task import has_simulator
from diffusion_policy.common.checkpoint import LoadedPolicy
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.policy_files import WEIGHTS_FILE
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env_runner.task import task_from_config

SERVER = "https://diffusion-policy.cs.columbia.edu/data/experiments"  # Chi et al. 2023, the authors' site
METHOD = "diffusion_policy_transformer"
DOMAIN_SHIFT = (
    "original checkpoints of robomimic's image tasks were trained on images of robosuite 1.2. Those of robosuite 1.4.1 "
    "differ in floor, light and textures: a domain shift, and success rates are not the published ones."
)


@dataclass(frozen=True)
class TaskFile:
    """A file of config/task/, as far as checkpoints are concerned.

    Attributes:
        choice: how a command line names it, task=<choice>.
        name: the task's name in paths and results.
        original: folder of the published checkpoints of this task below `SERVER`, None if there are none.
    """

    choice: str
    name: str
    original: str | None

    def url(self, train: int = 0) -> str:
        """The folder of the checkpoints of one training, of which there are three: 0, 1 and 2."""
        return f"{SERVER}/{self.original}/{METHOD}/train_{train}/checkpoints"

    def folder(self, root: str | Path = "checkpoint", train: int = 0) -> Path:
        """Where downloaded checkpoints of one training are kept: below the task, as on the server."""
        return Path(root) / self.name / METHOD / f"train_{train}" / "checkpoints"

    def shipped(self) -> Path:
        """Where a checkpoint of this project is, if there is one (`task.checkpoint` of every config)."""
        return Path("checkpoint") / self.name / "ddpm100"

    def downloaded(self) -> list[Path]:
        """Original checkpoints that are here: in the working directory, or else where this project is."""
        for root in (Path(), SHIPPED):
            if checkpoints := sorted((root / self.folder().parents[1]).glob("train_*/checkpoints/*.ckpt")):
                return checkpoints
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


def find_checkpoint(checkpoint: str | None, task: Task) -> Path:
    """The checkpoint that `checkpoint` names; if it is the task's own and not there, the original that was downloaded.

    Relative paths count from the working directory; what is not there is looked for in this project.

    Raises:
        CheckpointError: neither is there, or several originals are; the message says what to do.
    """
    path = shipped(str(checkpoint))
    if path.exists() or checkpoint != task.checkpoint:
        return path
    files = task_files()
    file = next((file for file in files.values() if file.name == task.name), TaskFile(task.name, task.name, None))
    originals = file.downloaded()
    if len(originals) > 1:
        choices = "\n".join(f"    {quoted(original)}" for original in originals)
        raise CheckpointError(
            f"task {file.choice} has {len(originals)} original checkpoints: choose one with\n{choices}"
        )
    if originals:
        return originals[0]
    raise CheckpointError(missing(path, task, file, files))


def missing(path: Path, task: Task, file: TaskFile, files: dict[str, TaskFile]) -> str:
    """What a user can do without a checkpoint for `task` at `path`; `file` is where the task is configured."""
    elsewhere = "give any other with checkpoint=<folder or original .ckpt>"
    places = f"in {Path.cwd()}" if Path.cwd() == SHIPPED else f"neither in {Path.cwd()} nor in {SHIPPED}"
    lines = [f"there is no checkpoint for task {file.choice}: this project ships none ({path}, {places})"]
    if in_repository := only_in_a_checkout(path):
        lines.append(in_repository)
    if file.original:
        lines[0] += f", and no original one has been downloaded ({file.folder().parents[1]})"
        lines += [
            f"The original project publishes some, at {SERVER}/{file.original}/{METHOD}/: get one with",
            f"    bac checkpoint download task={file.choice}",
            f"after which the same command finds it; or {elsewhere}",
        ]
        if looks_through_robosuite(task):
            lines.append(f"Note: {DOMAIN_SHIFT}")
    else:
        lines.append("The original project publishes none for it: train one with")
        if "demos" in task:
            lines.append(f"    bac demos task={file.choice}     # once: its demonstrations")
        lines += [f"    bac train task={file.choice}", f"or {elsewhere}"]
    try:
        if has_simulator(task):
            task_from_config(task.to_dict()).check_installed()
    except MissingExtraError as error:
        lines.append(f"The simulator is missing, too: {error}")
    if here := runnable(files, file):
        lines.append(f"Policies that are here already: {', '.join(here)}")
    return "\n".join(lines)


def runnable(files: dict[str, TaskFile], wanted: TaskFile) -> list[str]:
    """task=<choice> of all tasks with a checkpoint, those of the same simulation as `wanted` first."""
    here = [
        file
        for file in files.values()
        if (shipped(file.shipped()) / WEIGHTS_FILE).exists() or len(file.downloaded()) == 1
    ]
    family = wanted.choice.split("_")[0]
    here.sort(key=lambda file: (file.choice.split("_")[0] != family, file.choice))
    return [f"task={file.choice}" + ("" if file.name == file.choice else f" ({file.name})") for file in here]


def quoted(path: Path) -> str:
    """checkpoint=<path> for a command line: Hydra needs quotes around the `=` in original names."""
    return f"""'checkpoint="{path}"'"""


def looks_through_robosuite(task: Task) -> bool:
    return "robomimic_task" in task and "shape_meta" in task


def notes(task: Task, loaded: LoadedPolicy) -> list[str]:
    """What has to be said beside every number of this checkpoint on this task."""
    # The original's names of these tasks end so (can_image_abs), also in a converted checkpoint; ours do not (can_ph).
    original = loaded.format == "original" or str(loaded.config["task"]).endswith(("_image", "_image_abs"))
    return [*([DOMAIN_SHIFT] if original and looks_through_robosuite(task) else []), *loaded.notes]
