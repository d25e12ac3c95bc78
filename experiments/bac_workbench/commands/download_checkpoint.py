"""Download a checkpoint that the Diffusion Policy project publishes, to where the other commands find it.

    bac checkpoint download task=can_ph                 the last one of the first training
    bac checkpoint download task=can_ph name=best       the one with the highest score in its name
    bac checkpoint download task=can_ph name=list       only lists what there is
    bac checkpoint download task=can_ph name=epoch=0650-test_mean_score=1.000.ckpt train=2

Settings: task; name=latest.ckpt; train=0 (of 0, 1, 2); checkpoint_dir=checkpoint; url=<another folder with such
files>; sha256=<checksum printed elsewhere>.

It goes to <checkpoint_dir>/<task>/diffusion_policy_transformer/train_<train>/checkpoints/, as on the server. An
interrupted download goes on where it stopped when the same command runs again. Without network, put the file
there under its own name and run the command.

Nobody published checksums of these files: the first download records its own (<name>.sha256), and running the
command again compares with it, which shows damage since then but not whether the download was genuine.
Checkpoints are pickles: they are read through an allow-list, and nothing in them is executed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bac_workbench.downloads.command import download_progress, run_command
from bac_workbench.settings import meant, read_arguments
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.errors import UserError

if TYPE_CHECKING:
    from bac_workbench.setup.task_files import TaskFile

DEFAULTS = {
    "task": None,
    "name": "latest.ckpt",
    "train": 0,
    "checkpoint_dir": "checkpoint",
    "url": None,
    "sha256": None,
}


def choose_task(settings: dict[str, Any]) -> TaskFile:
    """Raises ConfigError for a task or a name that is unknown."""
    from bac_workbench.downloads.checkpoints import BEST, LATEST, LIST
    from bac_workbench.setup.task_files import task_files

    published = {choice: file for choice, file in task_files().items() if file.original}
    task = settings["task"]
    if task not in published:
        problem = "which task?" if task is None else f"no original checkpoint is known for task={task}:"
        raise ConfigError(
            f"{problem} use one of {', '.join(f'task={choice}' for choice in published)}{meant(task, published)}"
        )
    name = settings["name"]
    if name not in (BEST, LIST) and ("/" in name or not name.endswith(".ckpt")):
        raise ConfigError(f"name={name}: use {BEST}, {LIST} or the name of a .ckpt file, such as {LATEST}")
    return published[task]


def run(task: TaskFile, settings: dict[str, Any]) -> None:
    from bac_workbench.downloads.checkpoints import (
        BEST,
        LIST,
        best_name,
        get_checkpoint,
        published_names,
        recorded_sha256,
    )
    from bac_workbench.downloads.fetch import require_url
    from bac_workbench.setup.checkpoints import quoted

    folder = task.folder(settings["checkpoint_dir"], settings["train"])
    url = require_url((settings["url"] or task.url(settings["train"])).rstrip("/"))
    name = settings["name"]
    if name in (BEST, LIST):
        names = published_names(url)
        if name == LIST:
            print("\n".join(names))
            return
        name = best_name(names)
    path = folder / name
    known = settings["sha256"] or recorded_sha256(path)
    with download_progress() as progress:
        bar = progress.add_task(f"{task.choice} {name}", total=None)
        loaded, found = get_checkpoint(
            url, folder, name, settings["sha256"], lambda done, total: progress.update(bar, completed=done, total=total)
        )
    checked = "the first one recorded here (none is published)" if known is None else "as expected"
    step = "unknown step" if loaded.step is None else f"step {loaded.step}"
    print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB, {step}, hash of its EMA weights {loaded.hash[:12]}")
    print(f"sha256 {found}, {checked}")
    is_default = task.downloaded() == [path] and not task.shipped().exists()
    print(f"evaluate it with: bac eval task={task.choice} cache=bac{'' if is_default else ' ' + quoted(path)}")


def command(arguments: list[str]) -> None:
    settings = read_arguments(arguments, "download_checkpoint", DEFAULTS)
    run(choose_task(settings), settings)


def main(arguments: list[str] | None = None) -> int:
    return run_command(sys.argv[1:] if arguments is None else arguments, __doc__, command, (UserError,))
