"""The rollout loop: a policy acts in all slots at once until every episode has ended.

Numbers do not depend on what else runs: an episode always sits in the same row (index % rows) of a batch that always
has so many rows. With two batches the environments of one move while the policy computes for the other, and the numbers
are those of one batch of as many rows. An evaluation that was killed and resumed with the episodes it still lacks
therefore gives bit-equal results, provided that the policy computes each row from that row (and its episode) alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.env_runner.clock import Clock
from diffusion_policy.env_runner.episodes import Episode, EpisodeResult, append_episode, load_episodes, missing_episodes
from diffusion_policy.env_runner.multistep import ChunkResult, EpisodeOutcome
from diffusion_policy.env_runner.observation import Observation, apply, is_finite
from diffusion_policy.env_runner.vector import VectorEnv

__all__ = ["Episode", "EpisodeResult", "RolloutStats", "append_episode", "load_episodes", "missing_episodes", "rollout"]

# act(obs float32 [N, To, Do] (or [N, To, ...] by name), active bool [N], episodes [N], chunk_index [N])
# -> actions [N, Ta, Da], N the rows of a batch. With a clock that inpaints it gets a fifth argument, the committed
# actions of each row, [n, Da] with n >= 0 or None for an idle one.
Act = Callable[..., np.ndarray]


@dataclass
class RolloutStats:
    """Where the time of a rollout went.

    `policy_s` is spent inside `act`, `env_s` waiting for environments; both are wall-clock seconds of this process.
    `simulation_s` sums over all environments, which run in parallel. `policy_calls` counts batches, `chunks` the action
    chunks executed in them.
    """

    wall_s: float = 0.0
    policy_s: float = 0.0
    env_s: float = 0.0
    simulation_s: float = 0.0
    env_steps: int = 0
    policy_calls: int = 0
    chunks: int = 0

    @property
    def env_steps_per_s(self) -> float:
        """Environment steps per second of waiting for environments."""
        return self.env_steps / self.env_s if self.env_s else 0.0

    @property
    def policy_share(self) -> float:
        """Part of the wall-clock time spent in the policy, in [0, 1]."""
        return self.policy_s / self.wall_s if self.wall_s else 0.0

    def to_dict(self) -> dict[str, float]:
        return {**dataclasses.asdict(self), "env_steps_per_s": self.env_steps_per_s, "policy_share": self.policy_share}


def rollout(
    act: Act,
    env: VectorEnv,
    episodes: Sequence[Episode],
    *,
    clock: Clock | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    media_dir: str | Path | None = None,
    video_indices: Collection[int] = (),
    batches: int = 1,
) -> tuple[list[EpisodeResult], RolloutStats]:
    """Run `episodes` in `env`, a slot starting its next one as soon as its last one has ended.

    Args:
        act: the policy. Rows of `obs` whose slot is idle are zero, their `active` is False and their episode None; the
            actions in these rows are ignored. `chunk_index` counts the action chunks of a row's episode from 0.
        clock: how long chunks take, where `env` is of environments whose world goes on; None: the world waits.
        on_episode: called with every result as its episode ends; the order depends on timing.
        media_dir: folder for the videos of the episodes whose index is in `video_indices`: <split>_<seed>.mp4.
        batches: the policy takes so many batches in turn, each of n_envs / batches rows.

    Returns:
        The results sorted by index, and where the time went.

    Raises:
        ValueError: an index occurs twice, batches do not divide n_envs, actions of the wrong shape or not finite, or an
            observation not finite.
        EnvWorkerError: an environment failed.
    """
    slots = _Slots(env, episodes, media_dir, video_indices, clock, batches)
    stats = RolloutStats()
    results: list[EpisodeResult] = []
    begin = time.perf_counter()
    for slot in range(env.n_envs):
        slots.start_next(slot)
    turn = 0
    while True:
        rows = slots.rows(turn)
        started = time.perf_counter()
        while env.awaits(rows):
            slot, chunk = env.receive()
            stats.env_steps += chunk.env_steps
            stats.simulation_s += chunk.seconds
            if chunk.outcome is None:
                slots.observe(slot, chunk)
                continue
            results.append(slots.result(slot, chunk.outcome))
            slots.start_next(slot)  # its answer is awaited in this same loop
            if on_episode is not None:
                on_episode(results[-1])
        stats.env_s += time.perf_counter() - started
        active = slots.active()
        if not active.any():
            break
        turn = (turn + 1) % batches
        if not active[rows].any():
            continue
        started = time.perf_counter()
        obs = apply(lambda batch, rows=rows: np.copy(batch[rows]), slots.obs)
        batch = [obs, active[rows], slots.episodes[rows], slots.chunk_index[rows]]
        if clock is not None and clock.inpaints:
            batch.append(slots.committed[rows])
        actions = np.asarray(act(*batch))
        stats.policy_s += time.perf_counter() - started
        stats.policy_calls += 1
        stats.chunks += int(active[rows].sum())
        slots.send(rows, actions)
    stats.wall_s = time.perf_counter() - begin
    return sorted(results, key=lambda result: result.index), stats


class _Slots:
    """Which episode runs in which slot, and the batches of their observations."""

    def __init__(
        self,
        env: VectorEnv,
        episodes: Sequence[Episode],
        media_dir: str | Path | None,
        video_indices: Collection[int],
        clock: Clock | None,
        batches: int,
    ):
        if batches < 1 or env.n_envs % batches:
            raise ValueError(f"{env.n_envs} environments cannot be {batches} batches of as many rows")
        if len({episode.index for episode in episodes}) != len(episodes):
            raise ValueError("two of the episodes have the same index")
        if video_indices and media_dir is None:
            raise ValueError("videos need a media_dir to be written to")
        self._env, self._clock = env, clock
        self._media_dir = None if media_dir is None else Path(media_dir)
        self._video_indices = frozenset(video_indices)
        self._batches = batches
        self._queues: list[deque[Episode]] = [deque() for _ in range(env.n_envs)]
        for episode in sorted(episodes, key=lambda episode: episode.index):
            self._queues[episode.index % env.n_envs].append(episode)  # and so in row index % rows of its batch
        self.episodes: list[Episode | None] = [None] * env.n_envs
        self.chunk_index = [0] * env.n_envs
        self.obs: Observation | None = None  # [N, To, Do] from the first observation on
        self.committed: list[np.ndarray | None] = [None] * env.n_envs

    def rows(self, batch: int) -> slice:
        """The slots of a batch."""
        each = self._env.n_envs // self._batches
        return slice(batch * each, batch * each + each)

    def active(self) -> np.ndarray:
        return np.array([episode is not None for episode in self.episodes])

    def start_next(self, slot: int) -> None:
        """Start the slot's next episode, or leave it idle."""
        self.chunk_index[slot], self.committed[slot] = 0, None
        self.episodes[slot] = self._queues[slot].popleft() if self._queues[slot] else None
        episode = self.episodes[slot]
        if episode is not None:
            self._env.reset(slot, episode.seed, self._video_path(episode))
        elif self.obs is not None:
            self._write(slot, apply(np.zeros_like, apply(lambda batch: batch[slot], self.obs)))

    def observe(self, slot: int, chunk: ChunkResult) -> None:
        obs, self.committed[slot] = chunk.obs, chunk.committed
        if not is_finite(obs):
            raise InputError(
                f"the environment returned an observation that is not finite in {self._where(slot)}: "
                "its simulation diverged, or its state was set to something invalid"
            )
        if self.obs is None:
            self.obs = apply(lambda array: np.zeros((self._env.n_envs, *array.shape), dtype=np.float32), obs)
        self._write(slot, obs)

    def _write(self, slot: int, obs: Observation) -> None:
        apply(lambda batch, row: batch.__setitem__(slot, row), self.obs, obs)

    def send(self, rows: slice, actions: np.ndarray) -> None:
        """Send every active slot of a batch its chunk of `actions` [N, Ta, Da]."""
        count = rows.stop - rows.start
        if actions.ndim < 2 or actions.shape[0] != count:
            raise InputError(
                f"the policy must return actions [{count}, Ta, Da], one row per slot, not {list(actions.shape)}"
            )
        for row in np.flatnonzero(self.active()[rows]).tolist():
            slot = rows.start + row
            if not np.isfinite(actions[row]).all():
                raise InputError(
                    f"the policy returned actions that are not finite in {self._where(slot)}: "
                    "its weights or its normalizer are broken"
                )
            self._env.step(slot, actions[row], self._delay(slot))
            self.chunk_index[slot] += 1

    def result(self, slot: int, outcome: EpisodeOutcome) -> EpisodeResult:
        values = {f.name: getattr(outcome, f.name) for f in dataclasses.fields(outcome)}
        if outcome.video is not None:
            values["video"] = f"{self._media_dir.name}/{Path(outcome.video).name}"
        episode = self.episodes[slot]
        return EpisodeResult(
            index=episode.index, seed=episode.seed, split=episode.split, policy_calls=self.chunk_index[slot], **values
        )

    def _delay(self, slot: int) -> int | None:
        """Control steps that the slot's chunk takes; None: the world waits."""
        return None if self._clock is None else self._clock.delay(self.episodes[slot], self.chunk_index[slot])

    def _video_path(self, episode: Episode) -> Path | None:
        if episode.index not in self._video_indices:
            return None
        return self._media_dir / f"{episode.split}_{episode.seed}.mp4"

    def _where(self, slot: int) -> str:
        episode = self.episodes[slot]
        return f"episode {episode.index} ({episode.split} seed {episode.seed}), action chunk {self.chunk_index[slot]}"
