"""The demonstrations of robomimic as training windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from robomimic_data import LENGTHS, write_demonstrations

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.rotation import axis_angle_to_matrix
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_image, load_robomimic_lowdim
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.env.robomimic.definition import TASKS, to_robot_action
from tests.conftest import ROOT

pytest.importorskip("h5py")

HORIZON, BEFORE, AFTER = 6, 1, 3
ENDS = np.cumsum(LENGTHS)


def load_lowdim(path, task="can", **options):
    return load_robomimic_lowdim(path, task, Windows(HORIZON, BEFORE, AFTER, val_ratio=0.0), **options)


def load_image(path, task="can", val_ratio=0.0, max_train_episodes=None, **options):
    windows = Windows(HORIZON, BEFORE, AFTER, val_ratio, max_train_episodes)
    return load_robomimic_image(path, task, windows, **options)


def rows(demos, name):
    return np.concatenate([demo[name] for demo in demos])


def lowdim_rows(demos, task):
    return np.concatenate([rows(demos, f"obs/{name}") for name in TASKS[task].lowdim_shapes], axis=-1).astype(
        np.float32
    )


# Windows


@pytest.mark.parametrize("task", ["lift", "can", "transport"])
def test_lowdim_windows_hold_the_rows_of_the_file(tmp_path, task):
    demos = write_demonstrations(tmp_path / "low_dim_abs.hdf5", task)
    train, val = load_lowdim(tmp_path / "low_dim_abs.hdf5", task)
    assert val is None and len(train) == sum(length - HORIZON + BEFORE + AFTER + 1 for length in LENGTHS)
    obs, actions, definition = lowdim_rows(demos, task), rows(demos, "actions"), TASKS[task]
    batch = train[torch.arange(len(train))]
    assert batch["obs"].shape[1:] == (HORIZON, definition.obs_dim) and batch["obs"].dtype == torch.float32
    assert (
        batch["action"].shape[1:] == (HORIZON, definition.action_dim(True)) and batch["action"].dtype == torch.float32
    )
    np.testing.assert_array_equal(batch["obs"], obs[train.rows])
    np.testing.assert_allclose(to_robot_action(batch["action"].numpy()), actions[train.rows], atol=2e-6)
    episode = np.searchsorted(ENDS, train.rows.numpy(), side="right")
    assert (episode == episode[:, :1]).all() and set(episode.flat) == set(range(len(LENGTHS)))


def test_rotations_are_the_first_two_rows_of_the_matrix(tmp_path):
    demos = write_demonstrations(tmp_path / "low_dim_abs.hdf5")
    action = load_lowdim(tmp_path / "low_dim_abs.hdf5")[0].fields["action"].numpy()
    recorded = rows(demos, "actions")
    matrices = axis_angle_to_matrix(recorded[:, 3:6])
    np.testing.assert_allclose(action[:, 3:6], matrices[:, 0], atol=1e-6)
    np.testing.assert_allclose(action[:, 6:9], matrices[:, 1], atol=1e-6)
    np.testing.assert_array_equal(action[:, [0, 1, 2, 9]], recorded[:, [0, 1, 2, 6]].astype(np.float32))


def test_relative_actions_are_left_as_they_are(tmp_path):
    demos = write_demonstrations(tmp_path / "low_dim.hdf5", absolute=False)
    train, _ = load_lowdim(tmp_path / "low_dim.hdf5", abs_action=False)
    np.testing.assert_array_equal(train.fields["action"], rows(demos, "actions").astype(np.float32))


@pytest.mark.parametrize("task", ["can", "transport"])
def test_image_windows_hold_the_rows_of_the_file(tmp_path, task):
    demos = write_demonstrations(tmp_path / "image_abs.hdf5", task, image=True)
    train, _ = load_image(tmp_path / "image_abs.hdf5", task, n_obs_steps=2)
    for index in range(0, len(train), 7):
        item, window = train[index], train.rows[index]
        assert set(item) == {*TASKS[task].image_shapes, "action"} and item["action"].shape[0] == HORIZON
        for name, shape in TASKS[task].image_shapes.items():
            recorded = rows(demos, f"obs/{name}")[window[:2]]
            expected = np.moveaxis(recorded, -1, 1) if len(shape) == 3 else recorded.astype(np.float32)
            assert item[name].shape == (2, *shape) and item[name].dtype == (
                torch.uint8 if len(shape) == 3 else torch.float32
            )
            np.testing.assert_array_equal(item[name], expected)
    for values in train.images.values():
        assert isinstance(values, np.memmap) and values.dtype == np.uint8


def test_validation_episodes_are_held_out_and_share_the_images(tmp_path):
    write_demonstrations(tmp_path / "image_abs.hdf5", image=True)
    train, val = load_image(tmp_path / "image_abs.hdf5", val_ratio=0.3)
    assert not set(train.rows.flatten().tolist()) & set(val.rows.flatten().tolist())
    assert all(train.images[name] is val.images[name] for name in train.images)
    assert len(load_image(tmp_path / "image_abs.hdf5", max_train_episodes=2)[0]) < len(train)


def test_filter_keys_choose_nothing(tmp_path):
    import h5py

    write_demonstrations(tmp_path / "low_dim_abs.hdf5")
    complete = len(load_lowdim(tmp_path / "low_dim_abs.hdf5")[0])
    with h5py.File(tmp_path / "low_dim_abs.hdf5", "r+") as file:
        del file["mask"]
    assert len(load_lowdim(tmp_path / "low_dim_abs.hdf5")[0]) == complete


# Normalizers, as in the original


@pytest.mark.parametrize("task", ["can", "transport"])
def test_positions_of_absolute_actions_are_scaled_and_the_rest_is_not(tmp_path, task):
    write_demonstrations(tmp_path / "low_dim_abs.hdf5", task)
    train, _ = load_lowdim(tmp_path / "low_dim_abs.hdf5", task)
    normalizer, action = train.fit_normalizer()["action"], train.fields["action"]
    normalized = normalizer.normalize(action)
    for start in range(0, action.shape[-1], 10):
        position, rest = slice(start, start + 3), slice(start + 3, start + 10)
        np.testing.assert_allclose(normalized[:, position].amin(dim=0), -1, atol=1e-5)
        np.testing.assert_allclose(normalized[:, position].amax(dim=0), 1, atol=1e-5)
        assert torch.equal(normalized[:, rest], action[:, rest])
        assert {name: set(values[rest].tolist()) for name, values in normalizer.input_stats.items()} == {
            "min": {-1.0},
            "max": {1.0},
            "mean": {0.0},
            "std": {1.0},
        }
    np.testing.assert_allclose(normalizer.unnormalize(normalized), action, atol=1e-6)


def test_a_lowdim_observation_has_one_scale(tmp_path):
    write_demonstrations(tmp_path / "low_dim_abs.hdf5")
    train, _ = load_lowdim(tmp_path / "low_dim_abs.hdf5")
    normalizer, obs = train.fit_normalizer()["obs"], train.fields["obs"]
    assert normalizer.offset.abs().max() == 0 and len(set(normalizer.scale.tolist())) == 1
    assert normalizer.normalize(obs).abs().max() == pytest.approx(1)
    np.testing.assert_array_equal(normalizer.input_stats["min"], obs.amin(dim=0))


def test_image_observations_are_scaled_by_kind_and_relative_actions_are_not(tmp_path):
    write_demonstrations(tmp_path / "image.hdf5", image=True, absolute=False)
    train, _ = load_image(tmp_path / "image.hdf5", abs_action=False)
    normalizer = train.fit_normalizer()
    for name in ("robot0_eef_pos", "robot0_gripper_qpos"):
        normalized = normalizer[name].normalize(train.vectors[name])
        np.testing.assert_allclose(normalized.amin(dim=0), -1, atol=1e-5)
        np.testing.assert_allclose(normalized.amax(dim=0), 1, atol=1e-5)
    for name in ("robot0_eef_quat", "action"):
        assert torch.equal(normalizer[name].normalize(train.vectors[name]), train.vectors[name])
        np.testing.assert_array_equal(normalizer[name].input_stats["max"], train.vectors[name].amax(dim=0))
    assert normalizer["agentview_image"].scale.tolist() == [2.0]


def test_a_gripper_that_does_not_move_is_not_blown_up(tmp_path):
    import h5py

    write_demonstrations(tmp_path / "image_abs.hdf5", image=True)
    with h5py.File(tmp_path / "image_abs.hdf5", "r+") as file:
        for demo in file["data"].values():
            demo["obs/robot0_gripper_qpos"][...] = 0.04
    train, _ = load_image(tmp_path / "image_abs.hdf5")
    assert train.fit_normalizer()["robot0_gripper_qpos"].scale.tolist() == [1.0, 1.0]


# Configurations

CONFIGS = [
    f"{task.name}{kind}_{humans}" for task in TASKS.values() for kind in ("", "_lowdim") for humans in task.max_steps
]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_reads_the_file_of_its_name_for_its_policy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        config = compose("train", [f"task={name}"]).task
    path = tmp_path / config.dataset.dataset_path
    image = "_lowdim" not in name
    task, humans = name.replace("_lowdim", "").rsplit("_", 1)
    assert path == tmp_path / f"data/robomimic/datasets/{task}/{humans}/{'image' if image else 'low_dim'}_abs.hdf5"
    path.parent.mkdir(parents=True)
    write_demonstrations(path, task, image, lengths=(12,) if image else (12, 14))
    train, _ = instantiate(config.dataset)
    batch = train[torch.arange(2)]
    policy = config.policy
    if image:
        shapes = {key: tuple(entry.shape) for key, entry in policy.shape_meta.obs.items()}
        assert {key: tuple(batch[key].shape) for key in shapes} == {
            key: (2, policy.n_obs_steps, *shape) for key, shape in shapes.items()
        }
        (action_dim,) = policy.shape_meta.action.shape
    else:
        assert batch["obs"].shape == (2, policy.horizon, policy.obs_dim)
        action_dim = policy.action_dim
    assert batch["action"].shape == (2, policy.horizon, action_dim)
    assert set(train.fit_normalizer().params_dict) == set(batch)
