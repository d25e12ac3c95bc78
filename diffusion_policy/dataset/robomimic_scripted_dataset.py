"""Scripted demonstrations of robomimic's Lift, Can and Square as training windows with images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.robomimic_dataset import image_policy_normalizers
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset, Windows
from diffusion_policy.dataset.stored_demos import stored_settings
from diffusion_policy.env.robomimic.definition import task_named


def load_robomimic_scripted(
    dataset_path: str | Path,
    task: str,
    windows: Windows,
    abs_action: bool = True,
    n_obs_steps: int | None = None,
    reflections: bool | None = None,
    name: str | None = None,
    further_fields: Sequence[str] = (),
) -> tuple[ImageSequenceDataset, ImageSequenceDataset | None]:
    """Training and validation windows (None for val_ratio 0); they share the images, up to 0.8 GB of memory.

    Observation and action as in `RobomimicEnv` with images, normalizers as for the human demonstrations.

    Args:
        dataset_path: the replay buffer that `RobomimicDemonstrator` recorded.
        task: "lift", "can" or "square".
        abs_action: what the policy is to give; these demonstrations are of absolute actions only.
        n_obs_steps: fetch only the first observations of a window, those that the policy looks at.
        reflections: of the evaluation, to be the same as in the demonstrations. None: do not compare.
        name: of the task's configuration, for what errors advise.
        further_fields: other vectors [N, D] of the demonstrations to fetch with the observations, as targets of a
            training; no policy sees them.
    """
    definition, hint = (
        task_named(task),
        f"Make the demonstrations with: bac demos task={name or f'{task}_scripted_demos'}",
    )
    if not abs_action:
        raise DatasetError("scripted demonstrations have absolute actions: use task.abs_action=true")
    shapes = {
        part: (*shape[1:], shape[0]) if len(shape) == 3 else shape for part, shape in definition.image_shapes.items()
    }
    shapes["action"] = (definition.action_dim(abs_action),)
    images = [part for part, shape in shapes.items() if len(shape) == 3]
    buffer = ReplayBuffer.from_zarr(dataset_path, (*shapes, *further_fields), hint, image_keys=images)
    for part, shape in shapes.items():
        values = buffer.data[part]
        if values.shape[1:] != shape:
            raise DatasetError(
                f"{dataset_path} holds {part} {list(values.shape)} instead of {['N', *shape]}: these are not "
                f"scripted demonstrations of {task!r}. {hint}"
            )
    _check_settings(dataset_path, task, reflections, hint)
    normalizers = image_policy_normalizers(
        {part: buffer.data[part] for part in shapes if part not in images}, abs_action
    )
    make = partial(ImageSequenceDataset, buffer.data, n_obs_steps=n_obs_steps, normalizers=normalizers)
    return windows.split(make, buffer)


def _check_settings(path: str | Path, task: str, reflections: bool | None, hint: str) -> None:
    """Compares with what the demonstrations say about how they were made, where they say so."""
    recorded = stored_settings(path).get("demonstrator", {})
    if recorded.get("task", task) != task:
        raise DatasetError(f"{path} holds demonstrations of {recorded['task']!r}, not of {task!r}. {hint}")
    drawn = recorded.get("reflections", reflections)
    if reflections is not None and drawn != reflections:
        raise DatasetError(
            f"{path} was recorded with reflections={drawn}, the policy would be evaluated with {reflections}: "
            f"use task.environment.reflections={str(drawn).lower()}, or make other demonstrations. {hint}"
        )
