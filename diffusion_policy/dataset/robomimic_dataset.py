"""The human demonstrations of robomimic (Mandlekar et al. 2021) as training windows: poses only, or with images.

200 by a proficient human (ph) or 300 by several of different proficiency (mh), at 20 Hz.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from diffusion_policy.dataset.hdf5_files import open_group, read_text
from diffusion_policy.dataset.image_cache import cached_images
from diffusion_policy.dataset.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.robomimic_actions import check_actions, source_advice
from diffusion_policy.dataset.robomimic_files import (
    check_environment,
    demo_array,
    demo_names,
    open_demonstrations,
    read_demonstrations,
    readable,
)
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset, SequenceDataset, Windows
from diffusion_policy.env.robomimic.definition import (
    POLICY_ARM_DIM,
    ROBOT_ARM_DIM,
    RobomimicTask,
    task_named,
    to_policy_action,
)
from diffusion_policy.model.common.normalizer import FieldNormalizer

RANGE_EPS = 1e-7  # a dimension that moves less is not scaled up, as in the original


def load_robomimic_lowdim(
    dataset_path: str | Path,
    task: str,
    windows: Windows,
    abs_action: bool = True,
    name: str | None = None,
) -> tuple[SequenceDataset, SequenceDataset | None]:
    """Training and validation windows (validation is None for val_ratio 0).

    Observation and action as in `RobomimicEnv` without images. All demonstrations of the file count, whatever its
    filter keys.

    Args:
        dataset_path: low_dim_abs.hdf5, or low_dim.hdf5 with `abs_action` False.
        task: "lift", "can", "square", "transport" or "tool_hang".
        name: of the task's configuration, for what errors advise.
    """
    definition, path = task_named(task), Path(dataset_path)
    buffer = _read(path, definition, definition.lowdim_shapes, abs_action, name)
    obs = np.concatenate([buffer.data[f"obs/{part}"] for part in definition.lowdim_shapes], axis=-1)
    fields = {"obs": torch.from_numpy(obs), "action": torch.from_numpy(_actions(buffer, abs_action))}
    normalizers = {
        "obs": FieldNormalizer.fit(fields["obs"], "max_abs"),
        "action": action_normalizer(fields["action"], abs_action),
    }
    return windows.split(partial(SequenceDataset, fields, normalizers=normalizers), buffer)


def load_robomimic_image(
    dataset_path: str | Path,
    task: str,
    windows: Windows,
    abs_action: bool = True,
    n_obs_steps: int | None = None,
    cache_dir: str | Path | None = None,
    name: str | None = None,
) -> tuple[ImageSequenceDataset, ImageSequenceDataset | None]:
    """Training and validation windows (validation is None for val_ratio 0); their images stay on disk.

    Observation and action as in `RobomimicEnv` with images. All demonstrations of the file count, whatever its filter
    keys.

    Args:
        dataset_path: image_abs.hdf5, or image.hdf5 with `abs_action` False.
        task: "lift", "can", "square", "transport" or "tool_hang".
        n_obs_steps: fetch only the first observations of a window, those that the policy looks at.
        cache_dir: where the images are laid out for reading at random, once, as large as they are (see
            `cached_images`).
            None: beside the file.
        name: of the task's configuration, for what errors advise.
    """
    definition, path = task_named(task), Path(dataset_path)
    vectors = {part: shape for part, shape in definition.image_shapes.items() if len(shape) == 1}
    buffer = _read(path, definition, vectors, abs_action, name)
    fields = {part: buffer.data[f"obs/{part}"] for part in vectors}
    fields["action"] = _actions(buffer, abs_action)
    normalizers = image_policy_normalizers(fields, abs_action)
    shapes = {part: (*shape[1:], shape[0]) for part, shape in definition.image_shapes.items() if len(shape) == 3}
    folder = (Path(cache_dir) if cache_dir else path.parent) / f"{path.name}.cache"
    images = _images(path, folder, shapes, np.diff(buffer.episode_ends, prepend=0).tolist(), source_advice(path, name))
    make = partial(ImageSequenceDataset, {**images, **fields}, n_obs_steps=n_obs_steps, normalizers=normalizers)
    return windows.split(make, buffer)


def image_policy_normalizers(vectors: Mapping[str, np.ndarray], abs_action: bool) -> dict[str, FieldNormalizer]:
    """As in the original, of "action" and the parts of an observation with images that are no images, float32 [N,
    D]."""
    normalizers = {"action": action_normalizer(torch.from_numpy(vectors["action"]), abs_action)}
    for part, values in vectors.items():
        if part != "action":
            mode = "identity" if part.endswith("quat") else "limits"  # quaternions are in [-1, 1] already
            normalizers[part] = FieldNormalizer.fit(torch.from_numpy(values), mode, RANGE_EPS)
    return normalizers


def action_normalizer(action: torch.Tensor, abs_action: bool) -> FieldNormalizer:
    """As in the original: of absolute actions the positions are scaled to [-1, 1], rotations and grippers stay as they
    are; relative actions stay as they are."""
    if not abs_action:
        return FieldNormalizer.fit(action, "identity")
    arms = action.split(POLICY_ARM_DIM, dim=-1)
    return FieldNormalizer.concatenated(
        [
            part
            for arm in arms
            for part in (
                FieldNormalizer.fit(arm[:, :3], range_eps=RANGE_EPS),
                FieldNormalizer.identity(POLICY_ARM_DIM - 3),
            )
        ]
    )


def _read(
    path: Path, task: RobomimicTask, observation: Mapping[str, tuple[int, ...]], abs_action: bool, config: str | None
) -> ReplayBuffer:
    """Actions and the parts of an observation, once all is checked."""
    advice = source_advice(path, config)
    with open_demonstrations(path, advice) as file:
        with readable(path, advice):
            check_environment(file, path, task)
    shapes = {
        "actions": (ROBOT_ARM_DIM * task.n_arms,),
        **{f"obs/{part}": shape for part, shape in observation.items()},
    }
    buffer = read_demonstrations(path, shapes, advice)
    grippers = np.concatenate([buffer.data[f"obs/robot{arm}_eef_pos"] for arm in range(task.n_arms)], axis=-1)
    check_actions(path, buffer.data["actions"], grippers, abs_action, config)
    return buffer


def _actions(buffer: ReplayBuffer, abs_action: bool) -> np.ndarray:
    """Actions of a policy, float32."""
    actions = buffer.data["actions"]
    return to_policy_action(actions).astype(np.float32) if abs_action else actions


def _images(
    path: Path, folder: Path, shapes: Mapping[str, tuple[int, ...]], lengths: Sequence[int], advice: str
) -> dict[str, np.ndarray]:
    with open_demonstrations(path, advice) as file:
        demos, stat = demo_names(file, path), path.stat()

        def read(episode: int, name: str) -> np.ndarray:
            with readable(path, advice):
                return demo_array(file, demos[episode], f"obs/{name}", shapes[name], path, advice)[...]

        described = json.dumps([demos, read_text(open_group(file, "data", path), "env_args", path)])
        source = {
            "name": path.name,
            "bytes": stat.st_size,
            "modified_ns": stat.st_mtime_ns,
            "description": hashlib.sha256(described.encode()).hexdigest(),
        }
        for name in shapes:
            read(0, name)  # says of another image size before anything is written
        return cached_images(folder, source, shapes, lengths, read)
