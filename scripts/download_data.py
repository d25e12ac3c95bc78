"""Download the public demonstrations of a task, or verify the copy that is already there.

    python scripts/download_data.py task=pusht_lowdim               into data/, where the task's config looks for it
    python scripts/download_data.py task=pusht_lowdim verify=true   only compares the checksum
    python scripts/download_data.py task=kitchen_lowdim_abs         the human Kitchen demonstrations, 695 MB
    python scripts/download_data.py task=can_ph                     robomimic's, one file out of an archive of many GB

Settings: task; verify=false; data_dir=data; url=<another copy of the archive>; sha256=<checksum of the contents, as this
command prints it, instead of the known one>. An interrupted download goes on where it stopped when the same command runs
again. Without network, put the archive under its own name into data/, or unpack it there, and run the command.

The Push-T data is compared with a checksum that comes with this project. For Kitchen (kitchen_lowdim_abs and kitchen_lowdim
share one archive) nobody published a checksum: every file is read, the numbers and shapes of the demonstrations must be the
published ones, and the checksum of what was downloaded is written to data/kitchen/checksum.json. verify=true compares with
it later, which shows damage since then, not whether the download was genuine; sha256=<one printed elsewhere> shows more.
The same holds for robomimic's files (<file>.checksum.json), which are moreover compared with the checksum in their archive.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "experiments")]

from bac_workbench.downloads.command import download_progress, run_command  # noqa: E402
from bac_workbench.downloads.datasets import (  # noqa: E402
    SOURCES,
    NoChecksumError,
    OtherDataError,
    download,
    known_sha256,
    verify,
    verify_or_record,
)
from bac_workbench.downloads.fetch import name_in  # noqa: E402
from bac_workbench.downloads.sources import DataSource  # noqa: E402
from bac_workbench.settings import meant, read_arguments  # noqa: E402
from diffusion_policy.common.config import ConfigError  # noqa: E402
from diffusion_policy.common.lock import locked_output  # noqa: E402
from diffusion_policy.dataset.replay_buffer import DatasetError  # noqa: E402
from diffusion_policy.env.extras import MissingExtraError  # noqa: E402

DEFAULTS = {"task": None, "verify": False, "data_dir": "data", "url": None, "sha256": None}


def choose_source(settings: dict) -> DataSource:
    """Raises ConfigError for a task that is unknown."""
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
    folder = Path(settings["data_dir"]) / source.folder
    if settings["verify"] or folder.exists():
        again = f"python scripts/download_data.py task={settings['task']}"
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
    settings = read_arguments(arguments, "download_data", DEFAULTS)
    source = choose_source(settings)
    folder = Path(settings["data_dir"]) / source.folder
    known = settings["sha256"] or known_sha256(folder, source)
    with locked_output(folder, f"download of {source.folder}"):
        run(source, settings)
    if known is None:
        record = source.record(folder).name
        print(
            f"{folder}: complete, content sha256 {known_sha256(folder, source)} recorded in {record} (none is published)"
        )
    else:
        print(f"{folder}: verified, content sha256 {known}")


def main(arguments: list[str]) -> int:
    return run_command(arguments, __doc__, command, (DatasetError, MissingExtraError))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
