"""One episode slot in which the world goes on while the policy thinks; see `clock`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from diffusion_policy.env_runner import contract
from diffusion_policy.env_runner.clock import Pace
from diffusion_policy.env_runner.multistep import ChunkResult, MultiStep


class RealTimeStep(MultiStep):
    """As `MultiStep`, from one request for a chunk to the next.

    An observation is the moment of a request. `step` gets the chunk and the control steps that it took, executes what
    the robot does in these steps, then the chunk, and stops where the policy is asked again.

    Args:
        env: as of `MultiStep`, and with `hold_action(last)`, see `contract.hold_action`.
        options: as of `MultiStep`.
    """

    def __init__(self, env: gymnasium.Env, n_obs_steps: int, max_steps: int, pace: Pace, **options: Any):
        super().__init__(env, n_obs_steps, pace.chunk, max_steps, **options)
        contract.check_hold(env)
        self._pace = pace
        self._plan: list[np.ndarray] = []  # actions of the last chunk that are not executed yet
        self._last: np.ndarray | None = None  # the action executed last

    def reset(self, seed: int, video_path: str | Path | None = None) -> ChunkResult:
        result = super().reset(seed, video_path)
        self._plan, self._last = [], None
        return self._with_committed(result)

    def step(self, actions: np.ndarray, delay: int = 0) -> ChunkResult:
        """Execute from this request to the next one.

        Args:
            actions: the chunk [Ta, Da].
            delay: control steps that it took.

        Raises:
            ValueError: wrong shape, or an action that is not finite.
            RuntimeError: no episode is running.
        """
        chunk = list(self._checked(actions))
        ticks = self._pace.ticks(delay)
        meanwhile = self._plan[:delay]
        fresh = chunk[len(meanwhile) :]  # without the actions in whose place others were executed
        executed = self._held(meanwhile, delay)
        executed = self._held(executed + fresh[: ticks - delay], ticks)
        self._plan = fresh[ticks - delay :] if self._pace.continues else []
        self._last = executed[-1]
        return self._with_committed(self._execute(executed, new_from=delay))

    def _held(self, actions: list[np.ndarray], length: int) -> list[np.ndarray]:
        """`actions`, then standing still, until there are `length` of them."""
        actions = list(actions)
        while len(actions) < length:
            last = actions[-1] if actions else self._last
            actions.append(contract.hold_action(self.env, last))
        return actions

    def _with_committed(self, result: ChunkResult) -> ChunkResult:
        """With the actions that will be executed while the next chunk is computed, [<= commits, Da]."""
        if not self._pace.commits:
            return result
        committed = np.array(self._plan[: self._pace.commits]).reshape(-1, *self.env.action_space.shape)
        return dataclasses.replace(result, committed=committed)
