"""Which checkpoint the settings mean, and where to get one: shipped with this project, or published by the original."""

from __future__ import annotations

from pathlib import Path

from bac_workbench.locations import SHIPPED, only_in_a_checkout, shipped
from bac_workbench.settings.task import Task
from bac_workbench.setup.task import has_simulator
from bac_workbench.setup.task_files import METHOD, SERVER, TaskFile, task_file, task_files
from bac_workbench.setup.trainings import Training, find_training, refuse_both
from diffusion_policy.common.checkpoint import LoadedPolicy
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.policy_files import WEIGHTS_FILE
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env_runner.task import task_from_config

DOMAIN_SHIFT = (
    "original checkpoints of robomimic's image tasks were trained on images of robosuite 1.2. Those of robosuite 1.4.1 "
    "differ in floor, light and textures: a domain shift, and success rates are not the published ones."
)


def find_checkpoint(
    checkpoint: str | None, task: Task, training: Training | None = None, download: bool = False
) -> Path:
    """The checkpoint that `checkpoint` names; if it is the task's own and not there, the original that was downloaded.

    Relative paths count from the working directory; what is not there is looked for in this project.

    Args:
        training: which of the published ones, instead of the task's own.
        download: gets the published one where it is missing.

    Raises:
        UserError: neither is there, or several originals are; the message says what to do.
    """
    wanted = training or Training()
    if checkpoint != task.checkpoint:
        refuse_both(wanted, checkpoint)
        return shipped(str(checkpoint))
    file = task_file(task.name)
    if wanted.chosen:
        return find_training(wanted, file, download)
    path = shipped(str(checkpoint))
    if path.exists():
        return path
    originals = file.downloaded()
    if len(originals) > 1:
        choices = "\n".join(f"    {quoted(original)}" for original in originals)
        raise CheckpointError(
            f"task {file.choice} has {len(originals)} original checkpoints: choose one with train=0, 1 or 2 and "
            f"checkpoint_type=max or avg, or with\n{choices}"
        )
    if originals:
        return originals[0]
    if download:
        return wanted.download(file)
    raise CheckpointError(missing(path, task, file, task_files()))


def missing(path: Path, task: Task, file: TaskFile, files: dict[str, TaskFile]) -> str:
    """What a user can do without a checkpoint for `task` at `path`; `file` is where the task is configured."""
    elsewhere = "give any other with checkpoint=<folder or original .ckpt>"
    places = f"in {Path.cwd()}" if Path.cwd() == SHIPPED else f"neither in {Path.cwd()} nor in {SHIPPED}"
    lines = [f"there is no checkpoint for task {file.choice}: this project ships none ({path}, {places})"]
    if in_repository := only_in_a_checkout(path):
        lines.append(in_repository)
    if file.original:
        lines[0] += f", and no original one has been downloaded ({' or '.join(places_of(file))})"
        lines += [
            f"The original project publishes some, at {SERVER}/{file.original}/{METHOD}/: get one with",
            f"    bac checkpoint download task={file.choice}",
            "after which the same command finds it; or let this command get it and go on: add download=true;",
            f"or {elsewhere}",
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


def places_of(file: TaskFile) -> list[str]:
    return [str(folder.parents[1]) for folder in file.folders()]


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
