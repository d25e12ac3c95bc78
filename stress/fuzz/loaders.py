"""Everything that reads a file: how to make a small sound one, what reads it, and the errors it may answer with."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stress import samples
from stress.fuzz import datasets, policies

Changed = dict[str, bytes | None]  # what replaces the files of these names; None removes one


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: for the table and for `kinds=`.
        share: of all inputs; kinds that are quick to read get more.
        make: writes a sound file, or folder of files, below an existing folder and returns its path.
        load: reads it as the product does.
        errors: classes by which `load` may refuse; anything else is a finding.
        hostile: names of the hand-made inputs in `hostile.by_hand` that are tried first.
        leaves: `load` writes beside or into the files, which are written anew before every input.
    """

    name: str
    share: float
    make: Callable[[Path], Path]
    load: Callable[[Path], Any]
    errors: Callable[[], tuple[type[BaseException], ...]]
    hostile: tuple[str, ...] = ()
    leaves: bool = False


@dataclass(frozen=True)
class Sound:
    """The sound files of a kind: content by name below a folder, and which of them (or which folder) `load` gets."""

    files: dict[str, bytes]
    entry: str


@cache
def sound(kind: Kind) -> Sound:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = kind.make(Path(folder))
        files = {
            item.relative_to(folder).as_posix(): item.read_bytes()
            for item in sorted(Path(folder).rglob("*"))
            if item.is_file()
        }
        return Sound(files, path.relative_to(folder).as_posix())


def _checkpoint_errors() -> tuple[type[BaseException], ...]:
    from diffusion_policy.common.config import CheckpointError

    return (CheckpointError,)


def _config_errors() -> tuple[type[BaseException], ...]:
    from diffusion_policy.common.config import ConfigError

    return (ConfigError,)


def _schedule_errors() -> tuple[type[BaseException], ...]:
    from bac.schedule import ScheduleError

    return (ScheduleError, FileNotFoundError)


def _data_errors() -> tuple[type[BaseException], ...]:
    from diffusion_policy.dataset.replay_buffer import DatasetError

    return (DatasetError,)


KINDS = (
    Kind("pickle", 0.20, policies.write_pickle, policies.read_pickle, _checkpoint_errors, ("pickles",)),
    Kind("pickle of a checkpoint", 0.06, policies.write_checkpoint_pickle, policies.read_pickle, _checkpoint_errors),
    Kind(
        "original checkpoint",
        0.02,
        samples.original_checkpoint,
        policies.read_policy,
        _checkpoint_errors,
        ("checkpoints",),
    ),
    Kind("original image checkpoint", 0.0005, samples.image_checkpoint, policies.read_policy, _checkpoint_errors),
    Kind("checkpoint folder", 0.03, samples.checkpoint_folder, policies.read_policy, _checkpoint_errors, ("configs",)),
    Kind("training state", 0.05, samples.training_state, policies.read_training_state, _config_errors),
    Kind("schedule", 0.10, samples.schedule, policies.read_schedule, _schedule_errors, ("schedules",)),
    Kind("profile", 0.05, samples.profile, policies.read_profile, _schedule_errors, ("profiles",)),
    Kind("episodes", 0.05, samples.evaluation, policies.read_episodes, lambda: (ValueError,), leaves=True),
    Kind(
        "evaluation folder",
        0.03,
        samples.evaluation,
        policies.resume_evaluation,
        _config_errors,
        ("evaluations",),
        leaves=True,
    ),
    Kind(
        "comparison",
        0.02,
        samples.evaluations,
        policies.compare_evaluations,
        _config_errors,
        ("comparisons",),
        leaves=True,
    ),
    Kind("command line", 0.002, policies.write_command_line, policies.check_settings, _config_errors),
    Kind("zarr 2", 0.04, datasets.write_zarr(2), datasets.read_zarr, _data_errors, ("zarr 2",)),
    Kind("zarr 3", 0.03, datasets.write_zarr(3), datasets.read_zarr, _data_errors, ("zarr 3",)),
    Kind("zarr in a zip", 0.03, datasets.write_zarr_zip, datasets.read_zarr, _data_errors),
    Kind(
        "push-t zarr",
        0.02,
        datasets.write_buffer(keypoint=(9, 2), state=(5,), action=(2,)),
        datasets.read_pusht,
        _data_errors,
    ),
    Kind(
        "block pushing zarr",
        0.02,
        datasets.write_buffer(obs=(16,), action=(2,)),
        datasets.read_block_pushing,
        _data_errors,
    ),
    Kind(
        "kitchen zarr",
        0.02,
        datasets.write_buffer(obs=(30,), action=(9,)),
        datasets.read_kitchen_scripted,
        _data_errors,
    ),
    Kind(
        "own demonstrations",
        0.02,
        datasets.write_buffer(state=(4,), image=(6, 6, 3)),
        datasets.read_own_demonstrations,
        _data_errors,
    ),
    Kind("published archive", 0.02, samples.archive, datasets.unpack_archive, _data_errors, ("archives",), leaves=True),
    Kind("robomimic HDF5", 0.03, datasets.write_hdf5, datasets.read_robomimic, _data_errors, ("hdf5",)),
    Kind("kitchen logs", 0.04, datasets.write_log, datasets.read_kitchen_logs, _data_errors),
    Kind("kitchen arrays", 0.02, datasets.write_kitchen, datasets.read_kitchen_arrays, _data_errors),
    Kind("npy", 0.03, datasets.write_npy, datasets.read_array, _data_errors, ("npy",)),
    Kind("npz", 0.03, datasets.write_npz, datasets.read_arrays_of_one_file, _data_errors),
    Kind("image cache", 0.01, datasets.write_cache, datasets.read_image_cache, _data_errors, leaves=True),
)


def named(names: str) -> tuple[Kind, ...]:
    """The kinds whose names contain one of the comma-separated words; all of them if there are none."""
    if not names:
        return KINDS
    words = [word.strip() for word in names.split(",")]
    return tuple(kind for kind in KINDS if any(word in kind.name for word in words))


def available(kinds: tuple[Kind, ...], say: Callable[[str], None]) -> list[Kind]:
    """Those whose packages are installed; the others are named."""
    found = []
    for kind in kinds:
        try:
            sound(kind)
            found.append(kind)
        except ModuleNotFoundError as error:
            say(f"not tried: {kind.name}, as {error.name} is not installed")
    return found
