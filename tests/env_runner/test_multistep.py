import numpy as np
import pytest
from toy_env import ToyCameraEnv, ToyEnv, make_toy

from diffusion_policy.env_runner.multistep import MultiStep


class Counter(ToyEnv):
    """Observation = number of steps so far; never ends."""

    def reset(self, *, seed=None, options=None):
        self.t, self.actions = 0, []
        return np.zeros(3), {}

    def step(self, action):
        self.t += 1
        self.actions.append(np.array(action))
        return np.full(3, self.t), -float(self.t), False, False, {"is_success": False}


def test_observation_history_repeats_the_first_and_keeps_the_last():
    env = MultiStep(Counter(), n_obs_steps=3, n_action_steps=2, max_steps=10)
    first = env.reset(seed=0)
    assert first.obs.dtype == np.float32 and first.obs.shape == (3, 3)
    assert first.obs[:, 0].tolist() == [0, 0, 0]
    assert env.step(np.zeros((2, 2))).obs[:, 0].tolist() == [0, 1, 2]
    assert env.step(np.zeros((2, 2))).obs[:, 0].tolist() == [2, 3, 4]
    assert env.reset(seed=0).obs[:, 0].tolist() == [0, 0, 0]


def test_truncates_within_a_chunk_and_reports_the_best_reward():
    env = MultiStep(Counter(), n_obs_steps=1, n_action_steps=4, max_steps=6)
    env.reset(seed=0)
    assert env.step(np.zeros((4, 2))).outcome is None
    last = env.step(np.zeros((4, 2)))
    assert last.env_steps == 2
    assert last.outcome.truncated and not last.outcome.success
    assert last.outcome.env_steps == 6
    assert last.outcome.max_reward == last.outcome.score == -1.0 and last.outcome.sum_reward == -21.0
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros((4, 2)))


def test_own_end_stops_the_chunk_and_is_not_a_truncation():
    env = make_toy(max_steps=100)
    env.reset(seed=1)  # 6 steps
    env.step(np.zeros((4, 2)))
    last = env.step(np.zeros((4, 2)))
    assert last.env_steps == 2 and not last.outcome.truncated
    assert last.outcome.success  # the toy succeeded in its fourth step, before its last


def test_latency_delays_observations_and_drops_actions():
    inner = Counter()
    env = MultiStep(inner, n_obs_steps=2, n_action_steps=3, max_steps=10, n_latency_steps=1)
    env.reset(seed=0)
    chunk = np.arange(8.0).reshape(4, 2)
    result = env.step(chunk)
    assert result.obs[:, 0].tolist() == [1, 2]
    np.testing.assert_array_equal(inner.actions, chunk[1:])


def test_policy_observation_and_score():
    env = MultiStep(Counter(), 1, 2, 2, policy_observation=lambda obs: obs[:1], score=np.sum)
    assert env.reset(seed=0).obs.shape == (1, 1)
    assert env.step(np.zeros((2, 2))).outcome.score == -3.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_actions_are_refused(bad):
    env = make_toy()
    env.reset(seed=0)
    actions = np.zeros((4, 2))
    actions[2, 1] = bad
    with pytest.raises(ValueError, match="action 2 of the chunk is not finite"):
        env.step(actions)


def test_wrong_chunk_shape_and_settings_are_refused():
    env = make_toy()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"\[4, 2\] here, not \[3, 2\]"):
        env.step(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="at least 1"):
        make_toy(n_obs_steps=0)


def test_named_observations_are_stacked_by_name_and_only_seen_frames_are_drawn():
    env = MultiStep(ToyCameraEnv(), n_obs_steps=2, n_action_steps=4, max_steps=9)
    first = env.reset(seed=6)
    assert {name: array.shape for name, array in first.obs.items()} == {"state": (2, 3), "image": (2, 1, 2, 2)}
    assert all(array.dtype == np.float32 for array in first.obs.values())
    for chunk in (1, 2):
        assert env.step(np.zeros((4, 2))).obs["image"][:, 0, 0, 0].tolist() == [4 * chunk - 1, 4 * chunk]
    assert env.env.drawn == [0, 3, 4, 7, 8]


def test_a_chunk_shorter_than_the_history_draws_every_frame():
    env = MultiStep(ToyCameraEnv(), n_obs_steps=3, n_action_steps=1, max_steps=9, n_latency_steps=1)
    env.reset(seed=6)
    env.step(np.zeros((2, 2)))
    env.step(np.zeros((2, 2)))
    assert env.env.drawn == [0, 1, 2]
