"""What no training can use is found when demonstrations are read, and its cause and place are named."""

from __future__ import annotations

import re
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from file_kinds import pusht_arrays, write_zarr, zipped
from kitchen_data import write_arrays

from diffusion_policy.dataset import numbers
from diffusion_policy.dataset.block_pushing_dataset import load_block_pushing
from diffusion_policy.dataset.kitchen_dataset import load_kitchen_npy, load_kitchen_scripted
from diffusion_policy.dataset.kitchen_files import initial_states
from diffusion_policy.dataset.pusht_dataset import load_pusht_lowdim
from diffusion_policy.dataset.pusht_image_dataset import load_pusht_image
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset, SequenceDataset, Windows

WINDOWS = Windows(4, val_ratio=0.0)
ROWS, ENDS = 20, np.array([7, 12, 20])
NAN = re.escape("nan in episode 1, row 2 (row 9 of all), column 1")


def arrays_of(shapes):
    return {
        name: np.random.default_rng(0).uniform(0.2, 0.4, (ROWS, *shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


# name of the array, shapes of a row, what loads it
READ = [
    *((name, {"keypoint": (9, 2), "state": (5,), "action": (2,)}, load_pusht_lowdim) for name in ("state", "action")),
    *((name, {"img": (96, 96, 3), "state": (5,), "action": (2,)}, load_pusht_image) for name in ("state", "action")),
    *((name, {"obs": (16,), "action": (2,)}, load_block_pushing) for name in ("obs", "action")),
    *((name, {"obs": (30,), "action": (9,)}, load_kitchen_scripted) for name in ("obs", "action")),
    (
        "intention",
        {"obs": (16,), "action": (2,), "intention": (5,)},
        partial(load_block_pushing, effector_noise=0.01, n_obs_steps=2),
    ),
]


@pytest.mark.parametrize(("name", "shapes", "load"), READ)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named_by_array_episode_row_and_column(tmp_path, name, shapes, load, value):
    arrays = arrays_of(shapes)
    if "img" in arrays:
        arrays["img"] = np.zeros_like(arrays["img"]) + 7
    load(write_zarr(tmp_path / "sound.zarr", arrays), windows=WINDOWS)
    arrays[name][9, 1] = value
    write_zarr(tmp_path / "a.zarr", arrays)
    message = rf"a\.zarr holds data/{name} that is not finite: {NAN.replace('nan', str(value))}"
    with pytest.raises(DatasetError, match=message):
        load(tmp_path / "a.zarr", windows=WINDOWS)


def test_further_demonstrations_and_places_without_a_centre(tmp_path):
    arrays = arrays_of({"obs": (16,), "action": (2,), "intention": (5,)})
    arrays["intention"][3, 3:] = np.nan  # the expert circled nothing
    load = partial(
        load_block_pushing, write_zarr(tmp_path / "sound.zarr", arrays), WINDOWS, effector_noise=0.01, n_obs_steps=2
    )
    load()
    arrays["action"][9, 1] = np.nan
    write_zarr(tmp_path / "further.zarr", arrays)
    with pytest.raises(DatasetError, match=rf"further\.zarr holds data/action that is not finite: {NAN}"):
        load(further_paths=[tmp_path / "further.zarr"])


def test_numbers_in_several_axes_and_blocks(tmp_path, monkeypatch):
    arrays = pusht_arrays()
    arrays["keypoint"][19, 4, 1] = np.inf
    monkeypatch.setattr(numbers, "BLOCK_BYTES", 3 * arrays["keypoint"][:1].nbytes)
    with pytest.raises(
        DatasetError, match=r"data/keypoint .*: inf in episode 2, row 7 \(row 19 of all\), place \[4, 1\]"
    ):
        load_pusht_lowdim(write_zarr(tmp_path / "a.zarr", arrays), WINDOWS)


def test_kitchen_arrays_are_searched(tmp_path):
    arrays = write_arrays(tmp_path, (5, 8, 6))
    for name, read in (("all_init_qpos", initial_states), ("all_init_qvel", initial_states)):
        damaged = arrays[name].copy()
        damaged[1, 2] = np.nan
        np.save(tmp_path / f"{name}.npy", damaged)
        with pytest.raises(DatasetError, match=rf"{name}\.npy that is not finite: nan in row 1, column 2"):
            read(tmp_path)
        np.save(tmp_path / f"{name}.npy", arrays[name])
    mask = arrays["existence_mask"].copy()
    mask[2, 1] = np.nan
    np.save(tmp_path / "existence_mask.npy", mask)
    with pytest.raises(DatasetError, match="existence_mask.npy holds other numbers than 0 and 1"):
        load_kitchen_npy(tmp_path, WINDOWS)


def test_data_sets_of_other_loaders_are_searched_too():
    obs, rows = torch.zeros(6, 3), np.array([[0, 1], [4, 5]])
    obs[4, 2] = torch.nan
    for make in (SequenceDataset, ImageSequenceDataset):
        fields = {"action": torch.zeros(6, 2).numpy(), "obs": obs.numpy()}
        with pytest.raises(DatasetError, match="field 'obs' .* not finite: nan in row 4, column 2"):
            make(fields, rows)


# ---- episodes ----
@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([7, 5, 20], r"episode 1 has -2 rows \(it ends at row 5, and the one before at 7\)"),
        ([7, 7, 20], "episode 1 has 0 rows"),
        ([0, 20], "episode 0 has 0 rows"),
        ([-3, 20], "episode 0 has -3 rows"),
        ([7, 12, 21], "has 20 rows but the episodes end at row 21"),
        ([7, 12], "has 20 rows but the episodes end at row 12"),
        ([2.5, 20], "not whole numbers"),
        ([np.nan, 20], "not whole numbers"),
        ([[7, 20]], r"int64 \[1, 2\] instead of a list"),
        ([True, True], "bool"),
    ],
)
@pytest.mark.parametrize("unsigned", [False, True])
def test_ends_that_are_none_name_the_episode(ends, message, unsigned):
    ends = np.array(ends)
    if unsigned and ends.dtype == np.int64 and ends.min() >= 0:
        ends = ends.astype(np.uint64)  # its differences are never negative
        message = message.replace("int64", "uint64")
    with pytest.raises(DatasetError, match=message):
        ReplayBuffer({"x": np.zeros((20, 1))}, ends)


@pytest.mark.parametrize("kind", ["<i4", ">i8", "<u8", "<f8"])
def test_ends_of_any_type_give_the_same_episodes(tmp_path, kind):
    path = write_zarr(tmp_path / "a.zarr", ends=ENDS.astype(kind))
    train, _ = load_pusht_lowdim(path, WINDOWS)
    assert train.rows[:, 0].tolist() == [0, 1, 2, 3, 7, 8, 12, 13, 14, 15, 16]
    buffer = ReplayBuffer.from_zarr(path, ("action",))
    assert ReplayBuffer.joined([buffer, buffer]).episode_ends.tolist() == [7, 12, 20, 27, 32, 40]


# ---- types and shapes ----
@pytest.mark.parametrize("kind", [np.uint8, np.int8, bool])
def test_small_types_where_numbers_are_expected(tmp_path, kind):
    arrays = pusht_arrays()
    arrays["action"] = arrays["action"].astype(kind)
    with pytest.raises(DatasetError, match=rf"data/action is {np.dtype(kind)} \[20, 2\], .* store it as float32"):
        load_pusht_lowdim(write_zarr(tmp_path / "a.zarr", arrays), WINDOWS)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (1 / 255, "range 0..1, multiply them by 255"),
        (-1 / 255, "range -1..1"),
        (0.5, "the first is .* in row 0$|the first is"),
    ],
)
def test_images_of_another_range_say_so(tmp_path, scale, message):
    images = np.full((20, 96, 96, 3), 51.0, np.float32) * scale
    path = write_zarr(tmp_path / "a.zarr", {**arrays_of({"state": (5,), "action": (2,)}), "img": images})
    with pytest.raises(DatasetError, match=message):
        load_pusht_image(path, WINDOWS)


@pytest.mark.parametrize(("name", "shape"), [("keypoint", (20, 18)), ("state", (20, 1)), ("action", (20, 7))])
def test_arrays_of_another_task(tmp_path, name, shape):
    path = write_zarr(tmp_path / "a.zarr", {**pusht_arrays(), name: np.ones(shape, np.float32)})
    with pytest.raises(DatasetError, match=rf"holds '{name}' .* it is not Push-T"):
        load_pusht_lowdim(path, WINDOWS)


# ---- what lies at a path ----
def test_errors_say_what_is_there(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr")
    (tmp_path / "le" / "meta").mkdir(parents=True)
    (tmp_path / "le" / "meta" / "info.json").write_text('{"codebase_version": "v2.1"}')
    (tmp_path / "empty").mkdir()
    cut = zipped(folder).read_bytes()[:-30]
    for name, content in (
        ("x.hdf5", b"\x89HDF\r\n\x1a\n" + bytes(99)),
        ("text", b"hello"),
        ("none", b""),
        ("cut.zip", cut),
    ):
        (tmp_path / name).write_bytes(content)
    zipped(folder).rename(tmp_path / "other.zarr.zip")
    with zipfile.ZipFile(tmp_path / "things.zip", "w") as archive:
        archive.writestr("readme", "no data")
    for path, message in [
        ("missing.zarr", "no data set at .*missing.zarr: nothing is there. Get"),
        ("x.hdf5", "is an HDF5 file and not a zarr data set"),
        ("other.zarr", "nothing is there. There is .*other.zarr.zip, which can be read"),
        ("le", "is a LeRobot data set .* dataset=lerobot dataset.path=.*le"),
        ("empty", "is a folder, but not a readable replay buffer"),
        ("text", "is a file of another kind"),
        ("none", "is an empty file"),
        ("cut.zip", "a zip archive that is cut short"),
        ("things.zip", "a zip archive without a zarr group"),
        ("a.zarr/data/action", "is a single zarr array"),
        (".", "Did you mean .*a.zarr?"),
    ]:
        with pytest.raises(DatasetError, match=message):
            load_pusht_lowdim(tmp_path / path, WINDOWS)
