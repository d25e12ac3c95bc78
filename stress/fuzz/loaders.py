"""Everything that reads a file: how to make a small sound one, what reads it, and the errors it may answer with."""
from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from stress import samples
from stress.fuzz import pickles


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
    """The sound files of a kind: content by name below a folder, and which of them (or which folder) is given to `load`."""

    files: dict[str, bytes]
    entry: str


@lru_cache(maxsize=None)
def sound(kind: Kind) -> Sound:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = kind.make(Path(folder))
        files = {item.relative_to(folder).as_posix(): item.read_bytes() for item in sorted(Path(folder).rglob("*")) if item.is_file()}
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


# ---- checkpoints ----
def _pickle(path: Path) -> Any:
    from diffusion_policy.common.restricted_unpickler import restricted_loads

    return restricted_loads(path.read_bytes(), "the file")


def _write_pickle(folder: Path) -> Path:
    (folder / "a.pkl").write_bytes(pickles.sample())
    return folder / "a.pkl"


def _write_checkpoint_pickle(folder: Path) -> Path:
    """The pickle of a whole checkpoint, without its tensors."""
    import zipfile

    with zipfile.ZipFile(samples.original_checkpoint(folder)) as archive:
        content = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    (folder / "latest.ckpt").unlink()
    (folder / "checkpoint.pkl").write_bytes(content)
    return folder / "checkpoint.pkl"


def _policy(path: Path) -> Any:
    """Loads, and lets what was accepted act once: what cannot act must not be accepted."""
    import torch

    from diffusion_policy.common.checkpoint import load_policy

    loaded = load_policy(path)
    observation = loaded.policy.random_observation(1, torch.Generator().manual_seed(0))
    from diffusion_policy.common.config import CheckpointError, ConfigError
    try:
        with torch.no_grad():
            loaded.policy.predict_action(observation, torch.Generator().manual_seed(0))
    except (ConfigError, ValueError, FloatingPointError) as error:
        if "finite" not in str(error):      # weights with a flipped exponent may overflow; that has its own error
            raise
        raise CheckpointError(str(error)) from error
    return loaded


def _training_state(path: Path) -> Any:
    from diffusion_policy.workspace.training_state import read_progress

    return read_progress(path)


# ---- schedules, profiles, evaluations ----
def _schedule(path: Path) -> Any:
    from bac.schedule import Schedule

    schedule = Schedule.load(path)
    return str(schedule), schedule.digest, repr(schedule), schedule.update_steps


def _profile(path: Path) -> Any:
    from bac.profile import Profile

    return Profile.load(path)


def _episodes(path: Path) -> Any:
    from diffusion_policy.env_runner.episodes import load_episodes

    return load_episodes(path / "episodes.jsonl")


def _resume(path: Path) -> Any:
    from diffusion_policy.env_runner.episodes import Episode
    from experiments.evaluation_folder import resume

    return resume(path, dict(samples.SETTINGS), [Episode(row.index, row.seed, row.split) for row in samples.episode_rows()], False, lambda text: None)


def _compare(path: Path) -> Any:
    from experiments.comparison import compare, comparison_table

    comparison = compare(path)
    return comparison_table(comparison.rows)


def _write_command_line(folder: Path) -> Path:
    lines = ("cache: bac", "cache.budget: 7", "sampler.type: ddim", "sampler.steps: 8", "eval.n_test: 4", "eval.n_envs: 2", "seed: 0", "device: cpu",
             "profile.noise_seeds: [0,1]", "benchmark.n_chunks: 0", "output_dir: results/x", "task.adapter.max_steps: 24", "runtime: planned")
    (folder / "settings.yaml").write_text("\n".join(lines))
    return folder / "settings.yaml"


def _command_line(path: Path) -> Any:
    """Lines `name: value`, as `name=value` of an evaluation."""
    from experiments.settings.launch import check_command_line

    lines = path.read_text(errors="replace").split("\n")
    return check_command_line(["task=pusht_lowdim", *(line.replace(": ", "=", 1) for line in lines if line)], "eval")


# ---- data sets ----
def _windows() -> Any:
    from diffusion_policy.dataset.sequence_dataset import Windows

    return Windows(2)


def _cut(load: Callable[..., Any]) -> Callable[[Path], Any]:
    """Data of which too little is left for one window are refused in the words of `NO_WINDOW`."""
    def cut(path: Path) -> Any:
        from diffusion_policy.dataset.replay_buffer import DatasetError
        from diffusion_policy.dataset.sequence_dataset import NO_WINDOW

        try:
            return load(path)
        except ValueError as error:
            if str(error) != NO_WINDOW or isinstance(error, DatasetError):
                raise
            raise DatasetError(NO_WINDOW) from error
    return cut


@_cut
def _pusht(path: Path) -> Any:
    from diffusion_policy.dataset.pusht_dataset import load_pusht_lowdim

    return load_pusht_lowdim(path, _windows())


def _zarr(path: Path) -> Any:
    from diffusion_policy.dataset.replay_buffer import ReplayBuffer

    return ReplayBuffer.from_zarr(path, ("keypoint", "state", "action", "img"), image_keys=("img",))


@_cut
def _block_pushing(path: Path) -> Any:
    from diffusion_policy.dataset.block_pushing_dataset import load_block_pushing

    return load_block_pushing(path, _windows())


@_cut
def _kitchen_scripted(path: Path) -> Any:
    from diffusion_policy.dataset.kitchen_dataset import load_kitchen_scripted

    return load_kitchen_scripted(path, _windows())


@_cut
def _kitchen_logs(path: Path) -> Any:
    from diffusion_policy.dataset.kitchen_dataset import load_kitchen_logs

    return load_kitchen_logs(path.parent, _windows())


@_cut
def _kitchen_arrays(path: Path) -> Any:
    from diffusion_policy.dataset.kitchen_dataset import load_kitchen_npy
    from diffusion_policy.dataset.kitchen_files import initial_states

    return load_kitchen_npy(path, _windows()), initial_states(path)


@_cut
def _robomimic(path: Path) -> Any:
    from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim
    from diffusion_policy.env.robomimic.recorded_starts import initial_state

    return load_robomimic_lowdim(path, "can", _windows()), initial_state(path, 0)


def _own_demonstrations(path: Path) -> Any:
    from diffusion_policy.demos.storage import read_replay_buffer

    return read_replay_buffer(path)


def _npy(path: Path) -> Any:
    from diffusion_policy.dataset.numpy_files import read_npy

    return read_npy(path)


def _npz(path: Path) -> Any:
    from diffusion_policy.dataset.numpy_files import read_npz

    return read_npz(path)


def _image_cache(path: Path) -> Any:
    from diffusion_policy.dataset.image_cache import cached_images

    images = cached_images(path, {"name": "x"}, {"front": (4, 5, 3)}, (3, 4),
                           lambda episode, name: np.full((3 + episode, 4, 5, 3), 7 * episode + 1, np.uint8))
    if images["front"].shape != (7, 4, 5, 3) or sorted(set(images["front"].reshape(-1).tolist())) != [1, 8]:
        raise AssertionError("a damaged cache of images was taken for sound")
    return images


@_cut
def _unpack(path: Path) -> Any:
    from diffusion_policy.dataset.sources import unpack

    target = path.parent / "unpacked"
    try:
        unpack(path, "pusht", target)
        return _pusht(target / "demos.zarr")
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _write_zarr(version: int, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        from file_kinds import pusht_arrays, write_zarr

        return write_zarr(folder / "a.zarr", {**pusht_arrays(20)}, version=version, **options)
    return write


def _write_zarr_zip(folder: Path) -> Path:
    from file_kinds import write_zarr

    from stress.fuzz.containers import rezipped

    tree = write_zarr(folder / "a.zarr")
    parts = [(path.relative_to(tree).as_posix(), path.read_bytes(), 0) for path in sorted(tree.rglob("*")) if path.is_file()]
    shutil.rmtree(tree)
    (folder / "a.zarr.zip").write_bytes(rezipped(parts))
    return folder / "a.zarr.zip"


def _write_hdf5(folder: Path) -> Path:
    from robomimic_data import write_demonstrations

    write_demonstrations(folder / "low_dim_abs.hdf5", lengths=(8, 9))
    return folder / "low_dim_abs.hdf5"


def _write_log(folder: Path) -> Path:
    from kitchen_data import write_log

    (folder / "logs").mkdir()
    write_log(folder / "logs" / "log.mjl", 90)
    return folder / "logs" / "log.mjl"


def _write_kitchen(folder: Path) -> Path:
    from kitchen_data import write_arrays

    write_arrays(folder / "kitchen", (5, 8, 6))
    return folder / "kitchen"


def _write_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", np.arange(60, dtype=np.float64).reshape(3, 20))
    return folder / "a.npy"


def _write_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", action=np.arange(60.0).reshape(3, 20), done=np.zeros(3, bool))
    return folder / "a.npz"


def _write_cache(folder: Path) -> Path:
    _image_cache(folder / "c")
    return folder / "c"


def _buffer(**shapes: tuple[int, ...]) -> Callable[[Path], Path]:
    return lambda folder: samples.replay_buffer(folder, shapes)


KINDS = (
    Kind("pickle", 0.20, _write_pickle, _pickle, _checkpoint_errors, ("pickles",)),
    Kind("pickle of a checkpoint", 0.06, _write_checkpoint_pickle, _pickle, _checkpoint_errors),
    Kind("original checkpoint", 0.02, samples.original_checkpoint, _policy, _checkpoint_errors, ("checkpoints",)),
    Kind("original image checkpoint", 0.0005, samples.image_checkpoint, _policy, _checkpoint_errors),
    Kind("checkpoint folder", 0.03, samples.checkpoint_folder, _policy, _checkpoint_errors, ("configs",)),
    Kind("training state", 0.05, samples.training_state, _training_state, _config_errors),
    Kind("schedule", 0.10, samples.schedule, _schedule, _schedule_errors, ("schedules",)),
    Kind("profile", 0.05, samples.profile, _profile, _schedule_errors, ("profiles",)),
    Kind("episodes", 0.05, samples.evaluation, _episodes, lambda: (ValueError,), leaves=True),
    Kind("evaluation folder", 0.03, samples.evaluation, _resume, _config_errors, ("evaluations",), leaves=True),
    Kind("comparison", 0.02, samples.evaluations, _compare, _config_errors, ("comparisons",), leaves=True),
    Kind("command line", 0.002, _write_command_line, _command_line, _config_errors),
    Kind("zarr 2", 0.04, _write_zarr(2), _zarr, _data_errors, ("zarr 2",)),
    Kind("zarr 3", 0.03, _write_zarr(3), _zarr, _data_errors, ("zarr 3",)),
    Kind("zarr in a zip", 0.03, _write_zarr_zip, _zarr, _data_errors),
    Kind("push-t zarr", 0.02, _buffer(keypoint=(9, 2), state=(5,), action=(2,)), _pusht, _data_errors),
    Kind("block pushing zarr", 0.02, _buffer(obs=(16,), action=(2,)), _block_pushing, _data_errors),
    Kind("kitchen zarr", 0.02, _buffer(obs=(30,), action=(9,)), _kitchen_scripted, _data_errors),
    Kind("own demonstrations", 0.02, _buffer(state=(4,), image=(6, 6, 3)), _own_demonstrations, _data_errors),
    Kind("published archive", 0.02, samples.archive, _unpack, _data_errors, ("archives",), leaves=True),
    Kind("robomimic HDF5", 0.03, _write_hdf5, _robomimic, _data_errors, ("hdf5",)),
    Kind("kitchen logs", 0.04, _write_log, _kitchen_logs, _data_errors),
    Kind("kitchen arrays", 0.02, _write_kitchen, _kitchen_arrays, _data_errors),
    Kind("npy", 0.03, _write_npy, _npy, _data_errors, ("npy",)),
    Kind("npz", 0.03, _write_npz, _npz, _data_errors),
    Kind("image cache", 0.01, _write_cache, _image_cache, _data_errors, leaves=True),
)


def named(names: str | None) -> tuple[Kind, ...]:
    """The kinds whose names contain one of the comma-separated words; all of them for None."""
    if not names:
        return KINDS
    words = [word.strip() for word in names.split(",")]
    found = tuple(kind for kind in KINDS if any(word in kind.name for word in words))
    if not found:
        raise SystemExit(f"kinds={names}: use words of {', '.join(kind.name for kind in KINDS)}")
    return found


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
