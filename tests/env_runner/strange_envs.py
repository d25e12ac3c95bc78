"""Environments that lack something; their own module, so that worker processes can import them."""

import numpy as np
from toy_env import ToyEnv


class FourValues(ToyEnv):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class BareReset(ToyEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldSeed(ToyEnv):
    def seed(self, seed):
        self.seeded = seed

    def reset(self):
        return super().reset(seed=self.seeded)[0]


class NoSuccess(ToyEnv):
    def step(self, action):
        *rest, info = super().step(action)
        return *rest, {"score": 1.0}


class Changed(ToyEnv):
    """`change` of (obs, reward, terminated, truncated, info) after a step."""

    def step(self, action):
        return tuple(self.change(*super().step(action)))


class NanReward(Changed):
    def change(self, obs, reward, *rest):
        return obs, float("nan"), *rest


class NoReward(Changed):
    def change(self, obs, reward, *rest):
        return obs, None, *rest


class VagueEnd(Changed):
    def change(self, obs, reward, terminated, truncated, info):
        return obs, reward, np.array([True, False]), truncated, info


class NoInfo(Changed):
    def change(self, obs, reward, terminated, truncated, info):
        return obs, reward, terminated, truncated, None


class LateShape(Changed):
    def change(self, obs, *rest):
        return obs[:2], *rest


class OtherShape(ToyEnv):
    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return obs[:2], info


class Named(ToyEnv):
    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return {"state": obs}, info


class Words(ToyEnv):
    def reset(self, *, seed=None, options=None):
        return np.array(["a", "b", "c"]), {}


class OtherAction(ToyEnv):
    def __init__(self):
        super().__init__()
        self.action_space = type(self.action_space)(-1.0, 1.0, (3,), np.float64)


class NoActionSpace(ToyEnv):
    def __init__(self):
        super().__init__()
        self.action_space = None


class NoEnvironment:
    pass


class BrokenReset(ToyEnv):
    def reset(self, *, seed=None, options=None):
        raise LookupError("the scene file is gone")


class BrokenClose(ToyEnv):
    def close(self):
        raise LookupError("already closed")


class NoMetadata(ToyEnv):
    metadata = {}


class NoPicture(ToyEnv):
    def render(self):
        return None


class VagueMetric(Changed):
    def change(self, obs, reward, terminated, truncated, info):
        return obs, reward, terminated, truncated, {**info, "metrics": {"coverage": float("nan")}}


class Plain:
    """No gymnasium.Env at all, and enough."""

    def __init__(self):
        self._env = ToyEnv()
        self.action_space = self._env.action_space

    def reset(self, seed):
        return self._env.reset(seed=seed)

    def step(self, action):
        obs, reward, terminated, truncated, info = self._env.step(action)
        return (
            list(obs),
            np.float32([reward]),
            np.bool_(terminated),
            int(truncated),
            {"is_success": np.array([info["is_success"]])},
        )

    def close(self):
        self._env.close()
