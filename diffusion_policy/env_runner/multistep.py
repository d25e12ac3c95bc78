"""One episode slot: an environment seen in action chunks, as a policy with an observation history sees it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.env_runner import contract
from diffusion_policy.env_runner.motion import Motion
from diffusion_policy.env_runner.observation import Observation, apply, stack
from diffusion_policy.env_runner.video import VideoWriter


@dataclass(frozen=True)
class EpisodeOutcome:
    """What an episode amounted to: `score` is the task's, `metrics` its other numbers.

    The last three tell how the policy moved; see `EpisodeResult`.
    """

    score: float
    max_reward: float
    sum_reward: float
    success: bool
    truncated: bool
    env_steps: int
    metrics: dict[str, float]
    video: str | None
    success_step: int | None = None
    jitter: float | None = None
    boundary_jump: float | None = None


@dataclass(frozen=True)
class ChunkResult:
    """Answer to a reset or to one action chunk."""

    obs: Observation  # float32 [To, Do] (or [To, ...] by name), oldest first
    env_steps: int  # executed by this call
    seconds: float  # spent in the environment by this call
    outcome: EpisodeOutcome | None  # set when the episode has ended
    # [n, Da], n >= 0, of real-time chunking: what will be executed until the next chunk is there
    committed: np.ndarray | None = None


def max_reward(rewards: np.ndarray) -> float:
    """Score of an episode with rewards [T]: the largest one."""
    return float(np.max(rewards))


class MultiStep:
    """Executes action chunks in `env` and keeps the last `n_obs_steps` observations.

    Args:
        env: a gymnasium environment whose observations are arrays or flat dicts of arrays; see `contract.OFFER`. Every
            step's info holds "is_success"; an episode is a success if any step was. The last info may hold "metrics", a
            dict of numbers for the episode's result. An environment with an attribute `frames` draws the images of an
            observation only while it is True: drawing costs most, and the policy sees few of the frames.
        n_obs_steps: To. Right after a reset, the missing history repeats the first observation.
        n_action_steps: Ta, actions executed per chunk.
        max_steps: the episode is truncated after this many environment steps, also within a chunk.
        n_latency_steps: simulated latency. The policy sees observations this many steps late, and the first
            `n_latency_steps` actions of a chunk [n_latency_steps + Ta, Da] are dropped, since their time has passed.
        policy_observation: what the policy sees of an observation; default: all of it.
        score: score of an episode from its rewards [T].
        obs_shapes: of what the policy sees, one shape or shapes by name; None: not checked.
        action_dim: Da; None: as the environment says.

    Raises:
        EnvironmentContractError: `env` lacks something; also by `reset` and `step`, for what they meet.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        n_obs_steps: int,
        n_action_steps: int,
        max_steps: int,
        n_latency_steps: int = 0,
        policy_observation: Callable[[Observation], Observation] | None = None,
        score: Callable[[np.ndarray], float] = max_reward,
        obs_shapes: Mapping[str, tuple[int, ...]] | tuple[int, ...] | None = None,
        action_dim: int | None = None,
    ):
        if min(n_obs_steps, n_action_steps, max_steps) < 1 or n_latency_steps < 0:
            raise InputError(
                "n_obs_steps, n_action_steps and max_steps must be at least 1 and n_latency_steps at least 0, not "
                f"{n_obs_steps}, {n_action_steps}, {max_steps}, {n_latency_steps}"
            )
        contract.check_environment(env, action_dim)
        self.env = env
        self._obs_shapes = obs_shapes
        self.n_obs_steps = n_obs_steps
        self.n_action_steps = n_action_steps
        self.max_steps = max_steps
        self.n_latency_steps = n_latency_steps
        self._view = policy_observation
        self._score = score
        self._history: deque[Observation] = deque(maxlen=n_obs_steps + n_latency_steps)
        self._rewards: list[float] = []
        self._motion = Motion()
        self._success_step: int | None = None
        self._running = False
        self._video: VideoWriter | None = None

    def reset(self, seed: int, video_path: str | Path | None = None) -> ChunkResult:
        """Start the episode of `seed`; with `video_path`, record the frame after every executed action."""
        self._abort_video()
        start = time.perf_counter()
        self._draw_frames(True)
        obs = contract.reset(self.env, seed)
        self._history.clear()
        self._history.extend([self._policy_view(obs)] * self._history.maxlen)
        self._rewards, self._success_step, self._running = [], None, True
        self._motion = Motion()
        if video_path is not None:
            self._video = VideoWriter(video_path, fps=contract.frames_per_second(self.env))
        return ChunkResult(self._stacked(), 0, time.perf_counter() - start, None)

    def step(self, actions: np.ndarray) -> ChunkResult:
        """Execute a chunk [n_latency_steps + Ta, Da]; stops early when the episode ends.

        Raises:
            ValueError: wrong shape, or an action that is not finite.
            RuntimeError: no episode is running.
        """
        return self._execute(self._checked(actions)[self.n_latency_steps :])

    def _execute(self, actions: Sequence[np.ndarray], new_from: int = 0) -> ChunkResult:
        """Execute `actions`, at least one, of which those from `new_from` on are of another chunk than the last one."""
        start = time.perf_counter()
        executed = 0
        for action in actions:
            if executed == new_from:
                self._motion.begin_chunk()
            self._draw_frames(len(actions) - executed <= self._history.maxlen)
            obs, reward, terminated, truncated, info = contract.step(self.env, action)
            executed += 1
            self._history.append(self._policy_view(obs))
            self._rewards.append(reward)
            self._motion.add(action)
            if info["is_success"] and self._success_step is None:
                self._success_step = len(self._rewards)
            if self._video is not None:
                self._video.add(contract.frame(self.env))
            truncated = truncated or len(self._rewards) >= self.max_steps
            if terminated or truncated:
                self._running = False
                break
        if executed == new_from:
            self._motion.begin_chunk()
        outcome = None if self._running else self._finish(truncated and not terminated, info)
        return ChunkResult(self._stacked(), executed, time.perf_counter() - start, outcome)

    def close(self) -> None:
        self._abort_video()
        self.env.close()

    def _finish(self, truncated: bool, info: dict) -> EpisodeOutcome:
        video = None
        if self._video is not None:
            video, self._video = str(self._video.close()), None
        rewards = np.array(self._rewards)
        if not np.isfinite(rewards).all():
            contract.number(self.env, rewards[~np.isfinite(rewards)][0], "the reward")
        metrics = info.get("metrics", {})
        if not isinstance(metrics, Mapping):
            raise contract.EnvironmentContractError(
                self.env, f"info['metrics'] is {type(metrics).__name__}, not a dict of numbers"
            )
        return EpisodeOutcome(
            score=contract.number(self.env, self._score(rewards), "the score of the episode"),
            max_reward=float(rewards.max()),
            sum_reward=float(rewards.sum()),
            success=self._success_step is not None,
            truncated=truncated,
            env_steps=len(rewards),
            metrics={
                name: contract.number(self.env, value, f"info['metrics'][{name!r}]") for name, value in metrics.items()
            },
            video=video,
            success_step=self._success_step,
            jitter=self._motion.jitter,
            boundary_jump=self._motion.boundary_jump,
        )

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        if not self._running:
            raise RuntimeError("no episode is running in this environment: call reset(seed) first")
        actions = np.asarray(actions)
        expected = (self.n_latency_steps + self.n_action_steps, *self.env.action_space.shape)
        if actions.shape != expected:
            raise ValueError(
                f"an action chunk has shape [n_latency_steps + Ta, Da] = {list(expected)} here, "
                f"not {list(actions.shape)}"
            )
        finite = np.isfinite(actions).reshape(len(actions), -1).all(axis=1)
        if not finite.all():
            step = int(np.argmin(finite))
            raise InputError(
                f"action {step} of the chunk is not finite: {actions[step].tolist()}; "
                "the policy's weights, normalizer or observations are broken"
            )
        return actions

    def _draw_frames(self, needed: bool) -> None:
        """Only the last observations of a chunk reach the policy."""
        env = getattr(self.env, "unwrapped", self.env)
        if hasattr(env, "frames"):
            env.frames = needed

    def _policy_view(self, obs: Observation) -> Observation:
        seen = obs if self._view is None else self._view(obs)
        contract.check_observation(self.env, seen, self._obs_shapes)
        return apply(lambda array: np.asarray(array, dtype=np.float32), seen)

    def _stacked(self) -> Observation:
        return stack(list(self._history)[: self.n_obs_steps])  # [To, Do]; with latency: the oldest To

    def _abort_video(self) -> None:
        if self._video is not None:
            self._video.abort()
            self._video = None
