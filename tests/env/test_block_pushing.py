"""Block Pushing: what a seed means, what a step does, what is rewarded, and that the expert solves it."""

import sys

import numpy as np
import pytest

from diffusion_policy.env.block_pushing.definition import (
    EFFECTOR_TARGET,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    RewardEvents,
    total_reward,
)
from diffusion_policy.env.extras import MissingExtraError

TARGETS = np.array([[0.28, 0.2], [0.52, 0.2]])
FAR = np.array([[0.3, -0.2], [0.5, -0.2]])


def at(*blocks):
    return np.array(blocks, dtype=float)


def test_entering_is_rewarded_once_per_pair_and_the_last_step_ends_with_051():
    events = RewardEvents()
    assert events.step(FAR, TARGETS) == 0.0 and events.metrics() == {"p1": 0.0, "p2": 0.0}
    assert events.step(at(TARGETS[0] + [0.049, 0], FAR[1]), TARGETS) == 0.49
    assert events.metrics() == {"p1": 1.0, "p2": 0.0}
    assert events.step(at(TARGETS[0], FAR[1]), TARGETS) == 0.0
    assert events.step(FAR, TARGETS) == 0.0
    assert events.step(at(TARGETS[0], FAR[1]), TARGETS) == 0.0  # the same pair again: nothing
    assert events.step(at(TARGETS[1], FAR[1]), TARGETS) == 0.49  # another pair
    assert events.step(at(TARGETS[1], TARGETS[0]), TARGETS) == 0.51
    assert events.total == pytest.approx(1.0) and events.metrics() == {"p1": 1.0, "p2": 1.0}


def test_both_blocks_in_one_target_do_not_solve_the_task():
    events = RewardEvents()
    assert events.step(at(TARGETS[0] - [0.03, 0], FAR[1]), TARGETS) == 0.49
    assert events.step(at(TARGETS[0] - [0.03, 0], TARGETS[0] + [0.03, 0]), TARGETS) == 0.49
    assert events.metrics() == {"p1": 1.0, "p2": 0.0}


def test_a_block_exactly_at_the_tolerance_is_outside():
    events = RewardEvents()
    assert events.step(at([0.05, 0.0], [1.0, 1.0]), at([0.0, 0.0], [2.0, 2.0])) == 0.0


def test_two_first_entries_in_one_step():
    assert RewardEvents().step(at(*TARGETS), TARGETS) == 0.51
    assert RewardEvents().step(at(TARGETS[0], TARGETS[0] + [0, 0.04]), TARGETS) == pytest.approx(0.98)


def test_the_score_sums_different_rewards():
    assert total_reward(np.array([0, 0.49, 0, 0.49, 0.51])) == pytest.approx(1.0)
    assert total_reward(np.array([0, 0.49, 0.49])) == pytest.approx(0.49)
    assert total_reward(np.zeros(350)) == 0.0


def test_a_missing_pybullet_names_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "diffusion_policy.env.block_pushing.scene", raising=False)
    monkeypatch.setitem(sys.modules, "pybullet", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bac-workbench\[blockpush\]'"):
        import diffusion_policy.env.block_pushing.scene  # noqa: F401


pytest.importorskip("pybullet")

from diffusion_policy.env.block_pushing import block_pushing_env  # noqa: E402
from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv  # noqa: E402
from diffusion_policy.env.block_pushing.oracle import MultimodalPushOracle  # noqa: E402
from tests.env.block_pushing_play import run_oracle  # noqa: E402


@pytest.fixture
def env():
    env = BlockPushingEnv()
    yield env
    env.close()


# --- resets ---


def test_initial_poses_have_the_published_distribution():
    rngs = [np.random.RandomState(seed) for seed in range(2000)]
    blocks = np.array([block_pushing_env.draw_blocks(rng) for rng in rngs])  # [2000, 2, 3]
    targets = np.array([block_pushing_env.draw_targets(rng) for rng in rngs])
    orders = np.bincount([MultimodalPushOracle(rng).order_index for rng in rngs], minlength=4)
    assert (np.abs(blocks[..., 0] - 0.4) <= 0.1).all() and (np.abs(blocks[..., 1] + 0.2) <= 0.15).all()
    assert (np.abs(blocks[:, 0, 0] - blocks[:, 1, 0]) > 0.1).all()
    assert (np.abs(blocks[:, 0, 1] - blocks[:, 1, 1]) < 0.1).any()  # the distance counts in x only
    assert blocks[..., 2].min() > 1.0 and blocks[..., 2].max() < np.pi
    assert blocks[..., 2].min() < 1.02 and blocks[..., 2].max() > np.pi - 0.02
    side = np.sign(targets[:, 0, 0] - 0.4)
    assert 0.45 < (side > 0).mean() < 0.55 and (np.sign(targets[:, 1, 0] - 0.4) == -side).all()
    assert (np.abs(np.abs(targets[..., 0] - 0.4) - 0.12) <= 0.005).all()
    assert (np.abs(targets[..., 1] - 0.2) <= 0.0075).all()
    assert (np.abs(targets[..., 2] - np.pi) <= np.pi / 30).all()
    assert (np.abs(orders / 2000 - 0.25) < 0.04).all()


def test_a_seed_draws_in_the_order_of_the_original():
    rng, draws = np.random.RandomState(3), np.random.RandomState(3)
    first, second = block_pushing_env.draw_blocks(rng)
    u = lambda low, high: low + (high - low) * draws.random_sample()
    np.testing.assert_allclose(first, [u(0.3, 0.5), u(-0.35, -0.05), u(np.pi, 1.0)])
    while abs((x := u(0.3, 0.5)) - first[0]) <= 0.1:
        u(-0.35, -0.05)
    np.testing.assert_allclose(second, [x, u(-0.35, -0.05), u(np.pi, 1.0)])


def test_reset_shows_the_drawn_poses(env):
    obs, info = env.reset(seed=7)
    assert obs.shape == (16,) and obs.dtype == np.float32 and env.observation_space.contains(obs)
    rng = np.random.RandomState(7)
    blocks, targets = block_pushing_env.draw_blocks(rng), block_pushing_env.draw_targets(rng)
    np.testing.assert_allclose(obs[0:6], np.concatenate(blocks), atol=5e-4)  # settling moves them hardly
    expected = np.concatenate(targets)
    expected[[2, 5]] %= np.pi
    np.testing.assert_allclose(obs[10:16], expected, atol=1e-6)
    np.testing.assert_allclose(obs[EFFECTOR_TARGET], [0.3, -0.4])
    np.testing.assert_allclose(obs[6:8], [0.3, -0.4], atol=2e-3)
    assert info == {
        "is_success": False,
        "metrics": {"p1": 0.0, "p2": 0.0},
        "effector_target": pytest.approx([0.3, -0.4]),
    }
    heights = [env.scene.client.getBasePositionAndOrientation(body)[0][2] for body in env.scene._blocks]
    np.testing.assert_allclose(heights, 0.019, atol=5e-4)  # half a block above the plane at -1 mm


def test_episodes_repeat_bit_for_bit_whatever_ran_before(env):
    fresh = run_oracle(env, 2, steps=60)[0]
    run_oracle(env, 9, steps=15)
    again = run_oracle(env, 2, steps=60)[0]
    other = BlockPushingEnv()
    third = run_oracle(other, 2, steps=60)[0]
    other.close()
    np.testing.assert_array_equal(fresh, again)
    np.testing.assert_array_equal(fresh, third)


def test_without_a_seed_gymnasium_decides(env):
    first, second = env.reset()[0], env.reset()[0]
    assert not np.array_equal(first, second)


# --- steps ---


def test_relative_and_absolute_actions_move_alike(env):
    absolute = BlockPushingEnv(abs_action=True)
    env.reset(seed=0)
    absolute.reset(seed=0)
    target = np.array([0.3, -0.4])
    for delta in np.array([[0.03, 0.01], [0.02, -0.01], [0.0, 0.03]] * 2):
        target = np.clip(target + delta, WORKSPACE_LOW, WORKSPACE_HIGH)
        relative_obs = env.step(delta)[0]
        np.testing.assert_array_equal(relative_obs, absolute.step(target)[0])
    absolute.close()


def test_the_effector_follows_its_target_and_pushes_a_block(env):
    start, _ = env.reset(seed=0)
    block = start[0:2]
    for xy in (block - [0.0, 0.06], block + [0.0, 0.06]):
        while np.abs(delta := np.clip(xy - env.effector_target, -0.03, 0.03)).max() > 1e-6:
            obs, *_ = env.step(delta)
    np.testing.assert_allclose(obs[6:8], obs[EFFECTOR_TARGET], atol=6e-3)
    assert obs[1] > start[1] + 0.05  # pushed along y
    np.testing.assert_allclose(obs[3:6], start[3:6], atol=2e-3)  # the other one stayed


def test_the_target_stays_in_the_workspace(env):
    env.reset(seed=0)
    assert env.step([5.0, -5.0])[4]["effector_target"].tolist() == [0.7, -0.5]
    assert env.step([-5.0, 5.0])[4]["effector_target"].tolist() == [0.15, 0.5]


@pytest.mark.parametrize("action", [[0.1], [0.1, 0.2, 0.3], [np.nan, 0.0], [np.inf, 0.0]])
def test_impossible_actions_are_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="two finite numbers"):
        env.step(action)


def test_a_step_or_a_frame_before_the_first_reset_is_refused(env):
    for call in (lambda: env.step([0.0, 0.0]), env.render):
        with pytest.raises(RuntimeError, match="call reset"):
            call()


def test_unknown_reset_options_are_refused(env):
    with pytest.raises(ValueError, match="unknown reset options"):
        env.reset(seed=0, options={"state": 1})


def test_frames_show_the_blocks(env):
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (240, 320, 3) and frame.dtype == np.uint8
    red, green = (frame[..., i].astype(int) - frame[..., 1 - i] > 80 for i in (0, 1))
    assert red.sum() > 100 and green.sum() > 100


def test_bullet_prints_nothing(capfd):
    env = BlockPushingEnv()
    env.reset(seed=0)
    env.close()
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


# --- the expert ---
