"""Scripted demonstrations of robomimic as training windows; no simulator is needed."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.rotation import axis_angle_to_rotation_6d
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_scripted_dataset import load_robomimic_scripted
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.dataset.stored_demos import write_replay_buffer
from diffusion_policy.env.robomimic.definition import TASKS
from diffusion_policy.env_runner.task import task_from_config
from tests.conftest import ROOT

LENGTHS = (30, 20, 25, 40)
SETTINGS = {"source": "scripted", "demonstrator": {"task": "can", "reflections": False}}


def demonstration(length, seed, size=84):
    rng = np.random.default_rng(seed)
    quat = rng.normal(size=(length, 4))
    return {
        **{
            f"{camera}_image": rng.integers(0, 256, (length, size, size, 3), dtype=np.uint8)
            for camera in TASKS["can"].camera_names
        },
        "robot0_eef_pos": rng.uniform([-0.1, -0.4, 0.8], [0.2, 0.4, 1.1], (length, 3)).astype(np.float32),
        "robot0_eef_quat": (quat / np.linalg.norm(quat, axis=1, keepdims=True)).astype(np.float32),
        "robot0_gripper_qpos": (rng.uniform(0, 0.04, (length, 1)) * [1, -1]).astype(np.float32),
        "object_pose": rng.normal(size=(length, 7)).astype(np.float32),
        "action": np.concatenate(
            [
                rng.uniform([-0.1, -0.4, 0.8], [0.2, 0.4, 1.1], (length, 3)),
                axis_angle_to_rotation_6d(rng.normal(size=(length, 3))),
                rng.choice([-1.0, 1.0], (length, 1)),
            ],
            axis=1,
        ).astype(np.float32),
    }


@pytest.fixture(scope="module")
def demos():
    return [demonstration(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def path(tmp_path_factory, demos):
    path = tmp_path_factory.mktemp("demos") / "can.zarr"
    write_replay_buffer(path, demos, SETTINGS)
    return path


def load(path, task="can", val_ratio=0.0, max_train_episodes=None, **options):
    windows = Windows(10, 1, 7, val_ratio, max_train_episodes)
    return load_robomimic_scripted(path, task, windows, **{"n_obs_steps": 2, **options})


def test_windows_hold_the_rows_that_were_recorded(path, demos):
    train, val = load(path)
    assert val is None and len(train) == sum(length - 10 + 1 + 1 + 7 for length in LENGTHS)
    item, rows = train[len(train) - 1], train.rows[-1]
    assert set(item) == {*TASKS["can"].image_shapes, "action"}  # not the object's pose, which no policy sees
    for name, values in item.items():
        recorded = np.concatenate([demo[name] for demo in demos])[rows if name == "action" else rows[:2]]
        if name.endswith("_image"):
            recorded = np.moveaxis(recorded, -1, 1)
        np.testing.assert_array_equal(values, recorded)
    assert {name: tuple(values.shape[1:]) for name, values in item.items() if name != "action"} == TASKS[
        "can"
    ].image_shapes


def test_validation_holds_out_whole_demonstrations(path):
    train, val = load(path, val_ratio=0.25)
    assert len(train) + len(val) == len(load(path)[0])
    assert not set(train.rows.flatten().tolist()) & set(val.rows.flatten().tolist())
    assert len(load(path, max_train_episodes=2)[0]) < len(train)


def test_what_is_normalized_how(path, demos):
    train, _ = load(path)
    normalizer = train.fit_normalizer()
    action = torch.from_numpy(np.concatenate([demo["action"] for demo in demos]))
    normalized = normalizer["action"].normalize(action)
    assert normalized[:, :3].amin(0).tolist() == pytest.approx([-1] * 3)
    assert normalized[:, :3].amax(0).tolist() == pytest.approx([1] * 3)
    assert torch.equal(normalized[:, 3:], action[:, 3:])  # six numbers scaled apart would be no rotation
    raw = train[torch.arange(len(train))]
    batch = normalizer.normalize(
        {name: values / 255 if values.dtype == torch.uint8 else values for name, values in raw.items()}
    )
    for name in ("robot0_eef_pos", "robot0_gripper_qpos", "agentview_image", "robot0_eye_in_hand_image"):
        assert batch[name].min() == pytest.approx(-1, abs=0.05) and batch[name].max() == pytest.approx(1, abs=0.05)
    assert torch.equal(batch["robot0_eef_quat"], train[torch.arange(len(train))]["robot0_eef_quat"])


def test_further_vectors_are_windows_that_no_policy_normalizes(path, demos):
    train, _ = load(path, further_fields=["object_pose"])
    poses = np.concatenate([demo["object_pose"] for demo in demos])
    np.testing.assert_array_equal(train[3]["object_pose"], poses[train.rows[3][:2]])
    assert "object_pose" not in load(path)[0][3]
    with pytest.raises(DatasetError, match="no_such_field"):
        load(path, further_fields=["no_such_field"])


def test_images_are_stored_whole(path):
    import zarr

    chunks = zarr.open_group(str(path), mode="r")["data/agentview_image"].chunks
    assert chunks[1:] == (84, 84, 3) and chunks[0] > 1


def test_what_does_not_fit_is_refused(path, tmp_path):
    with pytest.raises(DatasetError, match="no data set at.*bac demos task=can_scripted_demos"):
        load(tmp_path / "none.zarr")
    with pytest.raises(DatasetError, match="demonstrations of 'can', not of 'lift'"):
        load(path, task="lift")
    with pytest.raises(
        DatasetError, match="reflections=False, .*evaluated with True.*task.environment.reflections=false"
    ):
        load(path, reflections=True)
    assert load(path, reflections=False)
    with pytest.raises(DatasetError, match="abs_action=true"):
        load(path, abs_action=False)
    write_replay_buffer(tmp_path / "small.zarr", [demonstration(12, 0, size=64)], {})
    with pytest.raises(DatasetError, match=r"agentview_image \[12, 64, 64, 3\] instead of \['N', 84, 84, 3\]"):
        load(tmp_path / "small.zarr")
    broken = demonstration(12, 0)
    broken["action"][3, 1] = np.nan
    write_replay_buffer(tmp_path / "broken.zarr", [broken], {})
    with pytest.raises(DatasetError, match="action that is not finite"):
        load(tmp_path / "broken.zarr")


@pytest.mark.parametrize("task", ["lift", "can", "square"])
def test_configs(task):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        config, demos = (compose(script, [f"task={task}_scripted_demos"]) for script in ("train", "make_demos"))
    simulated = task_from_config(config.task)
    environment = simulated.environment
    # Named in every result, and stored with the demonstrations.
    assert simulated.name == config.task.name == f"{task}_scripted_demos" and demos.task.demos.source == "scripted"
    assert config.task.checkpoint == f"checkpoint/{task}_scripted_demos/ddpm100"
    assert demos.output == config.task.dataset.dataset_path == f"data/robomimic/scripted/{task}.zarr"
    assert (
        demos.n_episodes == (400 if task == "can" else 200)
        and demos.seed_start + 10 * demos.n_episodes < simulated.seeds.test_start_seed
    )
    assert demos.task.demos.demonstrator.task == task and environment.max_steps == 400
    assert (
        demos.task.demos.demonstrator.reflections
        is config.task.dataset.reflections
        is environment.make.args[3]
        is False
    )
    with pytest.raises(InstantiationException, match=f"bac demos task={task}_scripted_demos"):
        instantiate(config.task.dataset, dataset_path="no such folder")
