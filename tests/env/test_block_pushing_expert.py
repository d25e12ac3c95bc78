"""The scripted expert of Block Pushing solves it, keeps to its phases, and recovers when it is perturbed."""

import numpy as np
import pytest

from diffusion_policy.env.block_pushing.definition import (
    EFFECTOR_TARGET,
    total_reward,
)

pytest.importorskip("pybullet")
from diffusion_policy.env.block_pushing import oracle
from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv
from diffusion_policy.env.block_pushing.oracle import MultimodalPushOracle, Phase, RecoveringOracle
from tests.env.block_pushing_play import run_oracle


@pytest.fixture
def env():
    env = BlockPushingEnv()
    yield env
    env.close()


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_the_oracle_solves_the_task(env, seed):
    observations, rewards, info = run_oracle(env, seed)
    assert info["is_success"] and info["metrics"] == {"p1": 1.0, "p2": 1.0}
    assert total_reward(rewards) == pytest.approx(1.0) and rewards[-1] == 0.51 and 0.49 in rewards
    assert 80 <= len(rewards) <= 150
    assert np.linalg.norm(np.diff(observations[:, EFFECTOR_TARGET], axis=0), axis=1).max() <= 0.035 + 1e-6


def test_the_oracle_keeps_to_its_order(env):
    for seed in (0, 1):
        obs, _ = env.reset(seed=seed)
        expert = MultimodalPushOracle(env.rng)
        (block, target), _ = expert.order
        reward = 0.0
        while reward == 0.0:
            obs, reward, *_ = env.step(expert.action(obs))
        assert np.linalg.norm(obs[3 * block : 3 * block + 2] - obs[10 + 3 * target : 12 + 3 * target]) < 0.05


def test_phases_of_the_oracle():
    expert = MultimodalPushOracle(np.random.RandomState(0))
    expert.order = oracle.ORDERS[0]
    obs = np.zeros(16, dtype=np.float32)
    obs[0:2], obs[3:5], obs[10:12], obs[13:15] = [0.4, -0.2], [0.55, -0.2], [0.4, 0.2], [0.55, 0.2]
    obs[2] = 0.5  # rad, out of line: the target lies along y
    obs[EFFECTOR_TARGET] = [0.4, -0.4]
    np.testing.assert_allclose(expert.action(obs), [0.0, 0.03], atol=1e-6)  # 0.3 m/s towards 5 cm behind
    obs[EFFECTOR_TARGET] = [0.4, -0.25]
    expert.action(obs)
    assert expert.phase is Phase.TURN_RIGHT and np.linalg.norm(expert.action(obs)) <= 0.015 + 1e-6
    obs[2] = 0.01
    expert.action(obs)  # straight now: a new attempt from the next step on
    assert expert.phase is Phase.APPROACH
    expert.action(obs)
    assert expert.phase is Phase.CONTACT
    obs[EFFECTOR_TARGET] = [0.4, -0.23]
    assert expert.action(obs)[1] > 0 and expert.phase is Phase.PUSH
    obs[0:2] = [0.4, 0.17]  # within 4 cm: the second block's turn
    expert.action(obs)
    assert expert.phase is Phase.BACK_OFF and expert.action(obs)[1] < 0


def test_experts_perturbed_to_the_same_place_do_the_same():
    """Whatever they were at: the nearest attempt, or what is left when a block is in a target."""
    observation = np.zeros(16)
    observation[[10, 11, 13, 14]] = [0.5, 0.2, 0.3, 0.2]
    observation[[0, 1, 3, 4]] = [0.45, -0.1, 0.25, -0.2]
    for effector, block in (((0.5, -0.2), 0), ((0.2, -0.3), 1)):
        observation[6:10] = np.tile(effector, 2)
        actions = []
        for seed in range(8):
            expert = RecoveringOracle(np.random.RandomState(seed))
            expert.action(observation)
            expert.recover(observation)
            actions.append(expert.action(observation))
            assert expert.order[0][0] == block
        assert (np.array(actions) == actions[0]).all()
        for near, done in ((0.03, True), (0.07, False)):  # block 0 in target 1
            observation[[0, 1]] = [0.3, 0.2 - near]
            expert.recover(observation)
            assert ((expert.order == ((0, 1), (1, 0))) and expert._stage == 1) == done
        observation[[0, 1]] = [0.45, -0.1]


@pytest.mark.parametrize("angle", np.linspace(0, 2 * np.pi, 8, endpoint=False))
@pytest.mark.parametrize("distance", [0.05, 0.2])
def test_a_perturbed_expert_goes_around_its_block(angle, distance):
    expert = RecoveringOracle(np.random.RandomState(0))
    block = 0
    observation = np.zeros(16)
    observation[[10, 11, 13, 14]] = [0.5, 0.2, 0.3, 0.2]
    observation[3 * block :][:2], observation[3 * (1 - block) :][:2] = (
        (0.4, -0.1),
        (1.15, -1.4),
    )  # the other one far away
    effector = observation[3 * block :][:2] + distance * np.array([np.cos(angle), np.sin(angle)])
    observation[6:10] = np.tile(effector, 2)
    expert.recover(observation)
    assert expert.order[0][0] == block
    target = expert.order[0][1]
    closest = np.inf
    for _ in range(40):  # the block stays where it is
        observation[6:10] = np.tile(effector, 2)
        action = expert.action(observation)
        if expert.phase is not Phase.APPROACH:
            break
        effector = effector + action
        closest = min(closest, np.linalg.norm(effector - observation[3 * block :][:2]))
    away = observation[3 * block :][:2] - observation[10 + 3 * target :][:2]
    assert np.linalg.norm(effector - observation[3 * block :][:2] - 0.05 * away / np.linalg.norm(away)) < 0.006
    assert closest > 0.037
