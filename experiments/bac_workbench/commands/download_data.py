"""Download the public demonstrations of a task, or verify the copy that is already there.

    bac data download task=pusht_lowdim               into data/, where the task's config looks for it
    bac data download task=pusht_lowdim verify=true   only compares the checksum
    bac data download task=kitchen_lowdim_abs         the human Kitchen demonstrations, 695 MB
    bac data download task=can_ph                     robomimic's, one file out of an archive of many GB

Settings: task; verify=false; data_dir=data; url=<another copy of the archive>; sha256=<checksum of the
contents, as this command prints it, instead of the known one>. An interrupted download goes on where it stopped
when the same command runs again. Without network, put the archive under its own name into data/, or unpack it
there, and run the command.

The Push-T data is compared with a checksum that comes with this project. For Kitchen (kitchen_lowdim_abs and
kitchen_lowdim share one archive) nobody published a checksum: every file is read, the numbers and shapes of the
demonstrations must be the published ones, and the checksum of what was downloaded is written to
data/kitchen/checksum.json. verify=true compares with it later, which shows damage since then, not whether the
download was genuine; sha256=<one printed elsewhere> shows more. The same holds for robomimic's files
(<file>.checksum.json), which are moreover compared with the checksum in their archive.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bac_workbench.downloads.command import download_progress, run_command
from bac_workbench.settings import meant, read_arguments
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.errors import UserError

if TYPE_CHECKING:
    from bac_workbench.downloads.sources import DataSource

DEFAULTS = {"task": None, "verify": False, "data_dir": "data", "url": None, "sha256": None}


def choose_source(settings: dict) -> DataSource:
    """Raises ConfigError for a task that is unknown."""
    from bac_workbench.downloads.datasets import SOURCES
    from bac_workbench.downloads.fetch import name_in

    if settings["task"] not in SOURCES:
        problem = "which task?" if settings["task"] is None else f"no public data is known for task={settings['task']}:"
        raise ConfigError(
            f"{problem} use {' or '.join(f'task={name}' for name in SOURCES)}{meant(settings['task'], SOURCES)}"
        )
    if settings["url"] is not None:
        name_in(settings["url"])
    return SOURCES[settings["task"]]


def run(source: DataSource, settings: dict) -> Path:
    """Returns the verified folder."""
    from bac_workbench.downloads.datasets import (
        NoChecksumError,
        OtherDataError,
        download,
        verify,
        verify_or_record,
    )
    from diffusion_policy.dataset.errors import DatasetError

    folder = Path(settings["data_dir"]) / source.folder
    if settings["verify"] or folder.exists():
        again = f"bac data download task={settings['task']}"
        if not folder.exists():
            raise DatasetError(f"no data set at {folder}: download it with {again}{_in_folder(settings)}")
        try:
            (verify if settings["verify"] else verify_or_record)(folder, source, settings["sha256"])
        except NoChecksumError:
            raise
        except DatasetError as error:
            if isinstance(error, OtherDataError) and settings["sha256"]:
                raise DatasetError(f"{error}\nCorrect sha256= if that is wrong") from error
            raise DatasetError(
                f"{error}\nMove the folder away and download it again: {again}{_in_folder(settings)}"
            ) from error
        return folder
    with download_progress() as progress:
        bar = progress.add_task(settings["task"], total=None)
        return download(
            source,
            settings["data_dir"],
            settings["url"],
            lambda done, total: progress.update(bar, completed=done, total=total),
            settings["sha256"],
        )


def _in_folder(settings: dict) -> str:
    return "" if settings["data_dir"] == DEFAULTS["data_dir"] else f" data_dir={settings['data_dir']}"


def command(arguments: list[str]) -> None:
    from bac_workbench.downloads.datasets import known_sha256
    from diffusion_policy.common.lock import locked_output

    settings = read_arguments(arguments, "download_data", DEFAULTS)
    source = choose_source(settings)
    folder = Path(settings["data_dir"]) / source.folder
    known = settings["sha256"] or known_sha256(folder, source)
    with locked_output(folder, f"download of {source.folder}"):
        run(source, settings)
    if known is None:
        recorded = f"{known_sha256(folder, source)} recorded in {source.record(folder).name}"
        print(f"{folder}: complete, content sha256 {recorded} (none is published)")
    else:
        print(f"{folder}: verified, content sha256 {known}")


def main(arguments: list[str] | None = None) -> int:
    return run_command(sys.argv[1:] if arguments is None else arguments, __doc__, command, (UserError,))
