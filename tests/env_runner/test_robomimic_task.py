"""The robomimic tasks in the rollout loop, and their configs."""

from dataclasses import replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.robomimic.definition import TASKS, to_policy_action
from diffusion_policy.env_runner.robomimic import robomimic_environment
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import Requirements, Seeds, Task, task_from_config
from tests.conftest import ROOT

CONFIGS = [(task.name, dataset) for task in TASKS.values() for dataset in task.max_steps]


def task_config(name, *overrides):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("train", [f"task={name}", *overrides]).task


def test_published_settings():
    section = task_config("can_ph", "task.environment.initial_states=demos.hdf5")
    task = task_from_config(section, n_train=6, n_test=50)
    assert [e.seed for e in task.episodes()] == [*range(6), *range(100_000, 100_050)]
    assert (task.chunking.n_obs_steps, task.chunking.n_action_steps) == (2, 8)
    assert task.environment.score(np.array([0, 1, 0.0])) == 1
    limits = {(task, dataset): robomimic_environment(task, dataset).max_steps for task, dataset in CONFIGS}
    long = {("transport", "ph"): 700, ("transport", "mh"): 700, ("tool_hang", "ph"): 700}
    assert limits == {(task, dataset): 500 if dataset == "mh" else 400 for task, dataset in CONFIGS} | long


@pytest.mark.parametrize("task, dataset", CONFIGS)
def test_configs_with_images(task, dataset):
    config = task_config(f"{task}_{dataset}")
    simulated, definition = task_from_config(config), TASKS[task]
    environment = simulated.environment
    assert simulated.name == config.name == f"{task}_{dataset}"
    assert config.checkpoint == f"checkpoint/{task}_{dataset}/ddpm100"
    shapes = {name: tuple(entry.shape) for name, entry in config.shape_meta.obs.items()}
    assert list(shapes.items()) == list(environment.obs_shapes.items()) == list(definition.image_shapes.items())
    assert [name for name, entry in config.shape_meta.obs.items() if entry.type == "rgb"] == [
        f"{camera}_image" for camera in definition.camera_names
    ]
    assert list(config.shape_meta.action.shape) == [environment.action_dim]
    assert environment.max_steps == definition.max_steps[dataset] and environment.make.args[:4] == (
        task,
        True,
        True,
        True,
    )
    crop, size = config.policy.crop_shape, definition.image_size
    assert all(0.9 * size <= side < 0.91 * size for side in crop)
    assert (config.horizon, config.dataset.windows.pad_before, config.dataset.windows.pad_after) == (10, 1, 7)
    assert f"/{task}/{dataset}/image_abs.hdf5" in config.dataset.dataset_path


@pytest.mark.parametrize("name", [f"{task}{kind}_{dataset}" for task, dataset in CONFIGS for kind in ("", "_lowdim")])
def test_relative_actions_are_one_setting(name):
    config = task_config(name, "task.abs_action=false")
    policy_actions = config.action_dim if "lowdim" in name else config.shape_meta.action.shape[0]
    assert policy_actions == task_from_config(config).environment.action_dim == 7 * (2 if "transport" in name else 1)
    assert "_abs" not in config.dataset.dataset_path


@pytest.mark.parametrize("task, dataset", CONFIGS)
def test_configs_without_images(task, dataset):
    config = task_config(f"{task}_lowdim_{dataset}")
    simulated, definition = task_from_config(config), TASKS[task]
    environment = simulated.environment
    assert simulated.name == config.name == f"{task}_lowdim_{dataset}"
    assert config.obs_dim == environment.obs_dim == definition.obs_dim and config.action_dim == environment.action_dim
    assert environment.max_steps == definition.max_steps[dataset] and environment.make.args[:3] == (task, False, True)
    model = config.policy.model
    assert (model.n_emb, model.p_drop_attn, model.horizon, model.cond_dim) == (256, 0.3, 10, definition.obs_dim)
    assert f"/{task}/{dataset}/low_dim_abs.hdf5" in config.dataset.dataset_path


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="no robomimic task 'stack'; use one of lift"):
        robomimic_environment("stack")
    with pytest.raises(ConfigError, match="no 'mh' demonstrations of 'tool_hang'; use ph"):
        robomimic_environment("tool_hang", "mh")
    with pytest.raises(ConfigError, match=r"6 train episodes .*initial_states=.*eval\.n_train=0"):
        Task("lift_ph", robomimic_environment("lift"), seeds=Seeds(n_train=6))
    assert [e.split for e in Task("lift_ph", robomimic_environment("lift"), seeds=Seeds(n_test=2)).episodes()] == [
        "test",
        "test",
    ]


def test_a_missing_robosuite_is_named_before_any_worker_starts():
    requirements = Requirements(("no_such_simulator",), extra="robomimic")
    with pytest.raises(MissingExtraError, match=r"no_such_simulator.*pip install 'bac-workbench\[robomimic\]'"):
        Task("lift_ph", replace(robomimic_environment("lift"), requirements=requirements)).vector_env(n_envs=1)


DOWN = to_policy_action(np.array([-0.1, 0.0, 0.9, np.pi, 0.0, 0.0, -1.0]))


def go_down(obs, active, episodes, chunk_index):
    """Actions [N, 8, 10]: the gripper goes to the table, pointing down."""
    n = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
    return np.broadcast_to(DOWN, (n, 8, 10))


@pytest.mark.slow
def test_rollout_in_worker_processes():
    pytest.importorskip("robosuite")
    task = Task("lift_ph", robomimic_environment("lift", image=False, max_steps=12), seeds=Seeds(n_test=3))
    with task.vector_env(n_envs=2, n_workers=2) as env:
        results, stats = rollout(go_down, env, task.episodes())
    assert [(r.score, r.env_steps, r.truncated, r.success, r.metrics) for r in results] == [
        (0, 12, True, False, {})
    ] * 3
    assert stats.env_steps == 36


@pytest.mark.slow
def test_the_policy_sees_images_of_its_last_observations_only(monkeypatch):
    pytest.importorskip("robosuite")
    from diffusion_policy.env.robomimic.cameras import Cameras

    drawn, draw = [], Cameras.image
    monkeypatch.setattr(Cameras, "image", lambda self, data, camera: drawn.append(camera) or draw(self, data, camera))
    slot = Task("lift_ph", robomimic_environment("lift")).make_slot()
    first = slot.reset(seed=100_000).obs
    assert {name: array.shape[1:] for name, array in first.items()} == dict(slot.env.task.image_shapes)
    assert drawn == ["agentview", "robot0_eye_in_hand"]
    last = slot.step(np.broadcast_to(DOWN, (8, 10))).obs
    assert drawn == ["agentview", "robot0_eye_in_hand"] * 3
    assert all(last[f"{camera}_image"].mean(axis=(1, 2, 3)).min() > 0.2 for camera in set(drawn))
    slot.close()
