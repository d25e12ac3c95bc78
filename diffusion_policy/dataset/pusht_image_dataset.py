"""Human Push-T demonstrations (206 episodes, 25,650 steps at 10 Hz) as image observations."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from diffusion_policy.dataset.pusht_dataset import require_rows
from diffusion_policy.dataset.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset, Windows

DOWNLOAD_HINT = "Get the human demonstrations with: bac data download task=pusht_image"
SHAPES = {"img": (96, 96, 3), "state": (5,), "action": (2,)}  # of a row


def load_pusht_image(
    zarr_path: str | Path,
    windows: Windows,
    n_obs_steps: int | None = None,
) -> tuple[ImageSequenceDataset, ImageSequenceDataset | None]:
    """Training and validation windows (validation is None for val_ratio 0); they share the images, 0.7 GB of memory.

    Observation "image" [3, 96, 96] in [0, 1] and "agent_pos" [2] as in `PushTImageEnv`. Action [2]: target position of
    the agent, in pixels of the 512 x 512 field.

    Args:
        n_obs_steps: fetch only the first observations of a window, those that the policy looks at.
    """
    buffer = ReplayBuffer.from_zarr(zarr_path, tuple(SHAPES), DOWNLOAD_HINT, image_keys=("img",))
    require_rows(zarr_path, buffer, SHAPES, DOWNLOAD_HINT)
    fields = {"image": buffer.data["img"], "agent_pos": buffer.data["state"][:, :2], "action": buffer.data["action"]}
    make = partial(ImageSequenceDataset, fields, n_obs_steps=n_obs_steps)
    return windows.split(make, buffer)
