"""The scripted expert's demonstrations of the kitchen, as the training data has them."""

import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium_robotics")

from diffusion_policy.demos.kitchen import KitchenDemonstrator
from diffusion_policy.env.kitchen.definition import CONTROL_HIGH, CONTROL_LOW, INITIAL_QPOS, TASKS
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv

SEEDS = range(6)


@pytest.fixture(scope="module")
def demos():
    demonstrator = KitchenDemonstrator()
    demos = [demonstrator.record(seed) for seed in SEEDS]
    demonstrator.close()
    demos = [demo for demo in demos if demo is not None]
    assert len(demos) >= len(SEEDS) // 2
    return demos


def test_what_is_recorded(demos):
    for demo in demos:
        n_steps = len(demo["obs"])
        assert {name: (values.shape, values.dtype) for name, values in demo.items()} == {
            "obs": ((n_steps, 30), np.float32),
            "action": ((n_steps, 9), np.float32),
            "tasks": ((n_steps, 7), np.uint8),
        }
        assert 100 < n_steps <= 280
        assert (demo["action"] >= CONTROL_LOW - 1e-6).all() and (demo["action"] <= CONTROL_HIGH + 1e-6).all()
        np.testing.assert_allclose(demo["obs"][0], INITIAL_QPOS, atol=0.05)
        assert demo["tasks"][0].sum() == 0 and demo["tasks"][-1].sum() == 4
        assert (np.diff(demo["tasks"].astype(int), axis=0) >= 0).all()


def test_demonstrations_differ_in_tasks_and_mostly_start_as_the_benchmark_does(demos):
    orders = {tuple(np.argsort(demo["tasks"].sum(axis=0))[::-1][:4]) for demo in demos}
    assert len(orders) >= len(demos) - 1
    assert any((demo["obs"][0] == INITIAL_QPOS.astype(np.float32)).all() for demo in demos)


def record_from_the_usual_start(**settings):
    demonstrator = KitchenDemonstrator(**settings)
    demos = (demonstrator.record(seed) for seed in range(20))
    demo = next(
        demo for demo in demos if demo is not None and (demo["obs"][0] == INITIAL_QPOS.astype(np.float32)).all()
    )
    demonstrator.close()
    return demo


def test_without_noise_recorded_actions_replay_to_the_recorded_observations():
    env, demo = KitchenEnv(noise_ratio=0.0), record_from_the_usual_start(noise=0.0)
    env.reset(seed=0)
    for obs, action, tasks in zip(demo["obs"], demo["action"], demo["tasks"], strict=True):
        np.testing.assert_allclose(env.data.qpos, obs, atol=1e-6)
        assert {task for task, done in zip(TASKS, tasks, strict=True) if done} == set(env.completed.order)
        env.step(action)
    assert len(env.completed.order) == 4
    env.close()


def test_noise_disturbs_what_is_executed_and_not_what_is_recorded():
    calm, noisy = (record_from_the_usual_start(n_tasks=1, noise=noise) for noise in (0.0, 0.01))
    planned = min(len(calm["action"]), len(noisy["action"]))
    np.testing.assert_array_equal(noisy["action"][:planned], calm["action"][:planned])
    off = np.abs(noisy["obs"][:planned, :7] - calm["obs"][:planned, :7]).max(axis=0)
    assert (off > 1e-4).all() and (off < 0.1).all()


def test_a_seed_gives_one_demonstration_whatever_was_recorded_before(demos):
    demonstrator = KitchenDemonstrator()
    again = [demonstrator.record(seed) for seed in (max(SEEDS), min(SEEDS))]
    demonstrator.close()
    for demo in again:
        assert demo is None or any(all(np.array_equal(demo[name], other[name]) for name in demo) for other in demos)


def test_too_few_steps_make_no_demonstration():
    demonstrator = KitchenDemonstrator(max_steps=60)
    assert demonstrator.record(0) is None
    demonstrator.close()


@pytest.mark.parametrize("settings, message", [({"n_tasks": 7}, "n_tasks"), ({"noise": -0.01}, "noise")])
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        KitchenDemonstrator(**settings)
