"""Block Pushing demonstrations (1000 episodes of the scripted oracle, about 115,000 steps at 10 Hz)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.dataset.numbers import require_finite
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.sequence_dataset import SequenceDataset, Windows
from diffusion_policy.env.block_pushing.definition import (
    ACTION_DIM,
    BLOCKS,
    EFFECTOR,
    EFFECTOR_TARGET,
    OBS_DIM,
    TARGET_YAW_SPREAD,
    TARGETS,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
)

HINT = "Make the demonstrations with: bac demos task=block_pushing"
INTENTION_DIM, CENTRE = 5, slice(3, 5)  # of what `Intention.to_array` stores
NO_INTENTION = (
    "effector_noise needs to know where the expert was heading (data/intention), which demonstrations from elsewhere "
    f"do not tell: set task.dataset.effector_noise=0, or make others. {HINT}"
)


def load_block_pushing(
    zarr_path: str | Path,
    windows: Windows,
    abs_action: bool = False,
    obs_eef_target: bool = True,
    effector_noise: float = 0.0,
    n_obs_steps: int | None = None,
    further_paths: Sequence[str | Path] = (),
    symmetries: bool = False,
) -> tuple[SequenceDataset, SequenceDataset | None]:
    """Training and validation windows (validation is None for val_ratio 0).

    Observation [16] and action [2] as in `BlockPushingEnv`.

    Args:
        zarr_path: demonstrations with relative actions.
        abs_action: turn the actions into the effector targets that they led to.
        obs_eef_target: False zeroes the effector's target in the observations.
        effector_noise: m, see `DisplacedEffectorDataset`; the validation windows stay as they are. Needs `n_obs_steps`,
            and demonstrations that `BlockPushingDemonstrator` made.
        n_obs_steps: To, how many of a window's observations a policy looks at.
        further_paths: demonstrations to learn from besides those of `zarr_path`.
        symmetries: see `SymmetricSceneDataset`; the validation windows stay as they are.
    """
    buffer = ReplayBuffer.joined([_read(path, bool(effector_noise)) for path in (zarr_path, *further_paths)])
    obs, action = (np.array(buffer.data[name], dtype=np.float32) for name in ("obs", "action"))
    aim = obs[:, EFFECTOR_TARGET].copy()
    if abs_action:
        action = np.clip(aim + action, WORKSPACE_LOW, WORKSPACE_HIGH).astype(np.float32)
    if effector_noise and (n_obs_steps is None or not 1 <= n_obs_steps <= windows.horizon):
        raise ValueError(
            f"effector_noise = {effector_noise} needs n_obs_steps from 1 to {windows.horizon}, got {n_obs_steps}"
        )
    if not obs_eef_target:
        obs[:, EFFECTOR_TARGET] = 0.0
    fields = {"obs": torch.from_numpy(obs), "action": torch.from_numpy(action)}
    plain = partial(SequenceDataset, fields)
    train = partial(SymmetricSceneDataset, fields) if symmetries else plain
    if effector_noise:
        intention = np.asarray(buffer.data["intention"], dtype=np.float32)
        train = partial(
            DisplacedEffectorDataset,
            fields,
            aim=torch.from_numpy(aim),
            intention=torch.from_numpy(intention),
            noise=effector_noise,
            n_obs_steps=n_obs_steps,
            abs_action=abs_action,
            obs_eef_target=obs_eef_target,
            symmetries=symmetries,
        )
    return windows.split(plain, buffer, make_train=train)


def _read(path: str | Path, with_intention: bool) -> ReplayBuffer:
    buffer = ReplayBuffer.from_zarr(path, ("obs", "action"), HINT)
    if with_intention:
        intention = ReplayBuffer.from_zarr(path, ("intention",), NO_INTENTION, any_number=("intention",)).data[
            "intention"
        ]
        if intention.ndim != 2 or intention.shape[1] != INTENTION_DIM or intention.dtype.kind != "f":
            raise DatasetError(
                f"{path} holds data/intention {intention.dtype} {list(intention.shape)} instead of numbers "
                f"[N, {INTENTION_DIM}]. {NO_INTENTION}"
            )
        # Where the expert circled nothing, there is no centre.
        require_finite(path, "data/intention", intention[:, : CENTRE.start], buffer.episode_ends)
        buffer.data["intention"] = intention
    obs, action = buffer.data["obs"], buffer.data["action"]
    if obs.shape[1:] != (OBS_DIM,) or action.shape[1:] != (ACTION_DIM,):
        raise DatasetError(
            f"{path} holds observations {list(obs.shape)} and actions {list(action.shape)} instead of "
            f"[N, {OBS_DIM}] and [N, {ACTION_DIM}]: it is not Block Pushing. {HINT}"
        )
    return buffer


class SymmetricSceneDataset(SequenceDataset):
    """Windows of scenes that the expert would have acted in alike.

    Each window is seen with its blocks exchanged or not, its targets exchanged or not, each block turned by a quarter
    or not, and each target turned to a yaw that an episode may draw. All of that changes neither how the blocks move,
    which are equal cubes, nor what the expert does, who draws the order and looks at a block's faces and a target's
    centre. What is drawn depends on the indices asked for alone, so a resumed training sees the same.
    """

    def __getitem__(self, index: int | Tensor) -> dict[str, Tensor]:
        item = super().__getitem__(index)
        return {**item, "obs": scene_like(item["obs"], _generator(index))}


def scene_like(obs: Tensor, generator: torch.Generator) -> Tensor:
    """Observations [..., T, 16] of other scenes in which the expert's actions are the same; see
    `SymmetricSceneDataset`."""
    obs, windows = obs.clone(), obs.shape[:-2]
    for poses in (BLOCKS, TARGETS):
        things = obs[..., poses].unflatten(-1, (2, 3))  # [..., T, 2, (x, y, yaw)]
        exchanged = torch.rand(*windows, 1, 1, 1, generator=generator) < 0.5
        things = torch.where(exchanged, things.flip(-2), things)
        if poses == BLOCKS:
            yaw = things[..., 2] + math.pi / 2 * torch.randint(2, (*windows, 1, 2), generator=generator)
        else:
            drawn = TARGET_YAW_SPREAD * (2 * torch.rand(*windows, 1, 2, generator=generator) - 1)
            yaw = drawn.expand(things.shape[:-1])
        obs[..., poses] = torch.cat([things[..., :2], (yaw % math.pi)[..., None]], -1).flatten(-2)
    return obs


def _generator(index: int | Tensor) -> torch.Generator:
    """Differs between batches, and repeats."""
    indices = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
    seed = int((indices * torch.arange(1, len(indices) + 1)).sum()) % 2**63
    return torch.Generator().manual_seed(seed)


class DisplacedEffectorDataset(SequenceDataset):
    """Windows in which the observed effector is displaced at random and the actions are the expert's from there.

    The expert moves straight and never errs, so a policy that copies its own last motion fits the demonstrations well,
    and fails. Displacing each observed step on its own makes the last motion a poor guide; displacing them together
    shows how to come back. The action is the one towards where the expert was heading, as the expert steers by the
    blocks.

    Both displacements are normal in x and y. They depend on the indices asked for alone, so a resumed training sees the
    same ones.

    Args:
        fields, rows: as of `SequenceDataset`.
        aim: float [N, 2], where the effector's controller aimed, also if the observations hide it.
        intention: float [N, 5], where the expert was heading; see `Intention.to_array`.
        noise: m, standard deviation of each of the two.
        n_obs_steps: To, the observations that a policy looks at; the rest of a window is undisturbed.
        abs_action: whether actions are effector targets instead of their changes.
        obs_eef_target: whether the observations hold the effector's target.
        symmetries: see `SymmetricSceneDataset`.
    """

    def __init__(
        self,
        fields: Mapping[str, Tensor],
        rows: np.ndarray,
        aim: Tensor,
        intention: Tensor,
        noise: float,
        n_obs_steps: int,
        abs_action: bool,
        obs_eef_target: bool,
        symmetries: bool = False,
    ):
        super().__init__(fields, rows)
        if noise < 0:
            raise ValueError(f"effector_noise = {noise} m is negative")
        self.aim, self.intention, self.noise, self.n_obs_steps = aim, intention, noise, n_obs_steps
        self.abs_action, self.obs_eef_target, self.symmetries = abs_action, obs_eef_target, symmetries

    def __getitem__(self, index: int | Tensor) -> dict[str, Tensor]:
        obs, rows = super().__getitem__(index)["obs"], self.rows[index]
        generator = _generator(index)
        together, alone = (
            self.noise * torch.randn(*obs.shape[:-2], steps, 2, generator=generator) for steps in (1, self.n_obs_steps)
        )
        displacement = torch.zeros(*obs.shape[:-1], 2)
        displacement[..., : self.n_obs_steps, :] = together + alone
        aim = self.aim[rows] + displacement
        action = steps_towards(self.intention[rows], self.aim[rows], aim)
        if self.abs_action:
            low, high = (torch.as_tensor(limit, dtype=torch.float32) for limit in (WORKSPACE_LOW, WORKSPACE_HIGH))
            action = torch.minimum(torch.maximum(aim + action, low), high)
        obs[..., EFFECTOR] += displacement
        if self.obs_eef_target:
            obs[..., EFFECTOR_TARGET] += displacement
        if self.symmetries:
            obs = scene_like(obs, generator)
        return {"obs": obs, "action": action}


def steps_towards(intention: Tensor, demonstrated: Tensor, effector: Tensor) -> Tensor:
    """The expert's actions [..., 2] (m) from `effector` [..., 2] when at `demonstrated` [..., 2] it intended
    `intention` [..., 5], see `Intention`."""
    waypoint, longest, centre = intention[..., :2], intention[..., 2:3], intention[..., 3:]
    ahead, start, now = (place - centre for place in (waypoint, demonstrated, effector))
    # The circle's waypoint, turned about the centre by as much as the effector is: the turn from `start` to `now`, as a
    # complex number.
    turn = torch.view_as_complex(now.contiguous()) * torch.view_as_complex(start.contiguous()).conj()
    turned = torch.view_as_real(torch.view_as_complex(ahead.contiguous()) * turn / turn.abs())
    step = torch.where(centre.isnan(), waypoint, centre + turned) - effector
    length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
    return step * (longest / length.clamp(min=1e-9)).clamp(max=1.0)
