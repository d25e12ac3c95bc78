"""The scripted experts do their tasks, from wherever they are pushed."""

import numpy as np
import pytest

pytest.importorskip("robosuite")

from diffusion_policy.env.robomimic.expert import EXPERTS, Style
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv

SEED = 100_000
slow = pytest.mark.slow


@pytest.fixture(scope="module", params=EXPERTS)
def env(request):
    env = RobomimicEnv(request.param, image=False)
    yield env
    env.close()


def solve(env, seed, style=None, max_steps=120, push=None):
    """Steps until the task was done, or None.

    `push` [3] (m) shifts the actions of ten steps on the way to the object.
    """
    env.reset(seed=seed)
    expert = EXPERTS[env.task.name](env, *[style] if style else [])
    for step in range(max_steps):
        action = expert.action()
        if push is not None and 5 <= step < 15:
            action[:3] += push
        *_, terminated, _, info = env.step(action)
        if terminated:
            assert info["is_success"]
            return step + 1
    return None


@slow
def test_lift_always():
    env = RobomimicEnv("lift", image=False)
    steps = [solve(env, seed, max_steps=60) for seed in range(SEED, SEED + 8)]
    assert None not in steps and np.mean(steps) < 40
    env.close()


@slow
def test_every_task(env):
    steps = [solve(env, seed) for seed in range(SEED, SEED + 3)]
    assert None not in steps, steps


@slow
def test_in_another_style_and_pushed_away(env):
    style = Style(lead=0.06, hover=0.08, grasp=(0.005, -0.003, 0.003), turn=0.1, place=(0.01, -0.01), clearance=0.02)
    undisturbed, styled = solve(env, SEED), solve(env, SEED, style)
    pushed = solve(env, SEED, max_steps=150, push=(-0.05, 0.06, 0.08))
    assert styled and styled != undisturbed
    assert pushed and pushed > undisturbed


def test_an_action_follows_from_what_there_is(env):
    """Another expert, asked for the first time in the middle of an episode, answers the same."""
    env.reset(seed=SEED)
    expert = EXPERTS[env.task.name](env)
    for _ in range(12):
        env.step(expert.action())
    action = expert.action()
    np.testing.assert_array_equal(EXPERTS[env.task.name](env).action(), action)
    np.testing.assert_array_equal(expert.action(), action)
    assert action.shape == (10,) and np.linalg.norm(action[:3] - expert.look().position) <= Style().lead + 1e-9


def test_experts_need_absolute_actions():
    env = RobomimicEnv("lift", image=False, abs_action=False)
    with pytest.raises(ValueError, match="abs_action=True"):
        EXPERTS["lift"](env)
    env.close()
