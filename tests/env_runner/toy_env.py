"""A tiny environment for tests of the runner; its own module, so that worker processes can import it."""

import os
import signal
import sys
import time
from functools import partial

import gymnasium
import numpy as np

from diffusion_policy.env_runner.multistep import MultiStep
from diffusion_policy.env_runner.realtime import RealTimeStep


class ToyEnv(gymnasium.Env):
    """Observation [3] = seed-dependent noise walk plus the action; ends by itself after 5 + seed % 7 steps.

    Seeds from 1000 on misbehave in their third step: 1000 raises, 1001 is killed, 1002 exits, 1003 hangs,
    1004 raises a ConnectionError, 1005 returns NaN.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode_seed, self.t = seed, 0
        self.obs = self.np_random.normal(size=3)
        return self.obs.copy(), {}

    def step(self, action):
        self.t += 1
        if self.t == 3:
            self._misbehave()
        self.obs = 0.5 * self.obs + 0.1 * self.np_random.normal(size=3)
        self.obs[:2] += action
        if self.episode_seed == 1005 and self.t == 3:
            self.obs[1] = np.nan
        done = self.t >= 5 + self.episode_seed % 7
        info = {"is_success": self.t == 4, "metrics": {"torch_imported": "torch" in sys.modules, "pid": os.getpid()}}
        return self.obs.copy(), float(np.exp(-np.square(self.obs).sum())), done, False, info

    def render(self):
        return np.full((32, 48, 3), 10 * self.t, dtype=np.uint8)

    def _misbehave(self):
        if self.episode_seed == 1000:
            raise ZeroDivisionError("the toy divided by zero")
        if self.episode_seed == 1001:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.episode_seed == 1002:
            os._exit(7)
        if self.episode_seed == 1003:
            time.sleep(60)
        if self.episode_seed == 1004:
            raise BrokenPipeError("the video encoder is gone")


def make_toy(max_steps=300, n_obs_steps=2, n_action_steps=4, n_latency_steps=0):
    return MultiStep(ToyEnv(), n_obs_steps, n_action_steps, max_steps, n_latency_steps=n_latency_steps)


toy_factory = partial(make_toy, max_steps=9)


class ToyHeldEnv(ToyEnv):
    """The same with a robot that can be held; `executed` are the actions of the running episode."""

    def reset(self, *, seed=None, options=None):
        self.executed = []
        return super().reset(seed=seed)

    def step(self, action):
        self.executed.append(np.array(action, dtype=np.float64))
        return super().step(action)

    def hold_action(self, last):
        return np.full(2, -9.0) if last is None else last


def make_held(pace, n_obs_steps=2, max_steps=9):
    return RealTimeStep(ToyHeldEnv(), n_obs_steps, max_steps, pace)


class ToyCameraEnv(ToyEnv):
    """The same with an image [1, 2, 2] that holds the step, drawn on demand; counts what it draws."""

    def __init__(self):
        super().__init__()
        self.frames, self.drawn = True, []

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return self._with_image(obs), info

    def step(self, action):
        obs, *rest = super().step(action)
        return self._with_image(obs), *rest

    def _with_image(self, obs):
        if self.frames:
            self.drawn.append(self.t)
        return {"state": obs, "image": np.full((1, 2, 2), self.t if self.frames else -1.0)}


def make_toy_camera():
    return MultiStep(ToyCameraEnv(), 2, 4, 9)
