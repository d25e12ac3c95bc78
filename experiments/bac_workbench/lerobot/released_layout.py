"""Recorded episodes in the layout that the released BAC project documents for its collected data.

    episodes/episode_000000/{videos/episode_video.mp4, metadata.json}
    episodes_data.parquet      a row for each frame
    dataset_summary.json

The columns are episode_idx, frame_idx, timestamp, success (of the episode), action_<i>, obs_<name>_<i> and
video_<camera>; what the policy sees as one vector is called "obs", and the rendered scene "episode_video". Unlike the
released script, which stores a row for each action chunk, a row is one control step: its frame of the video, what was
observed there, and the action that was executed next.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.files import write_json
from diffusion_policy.dataset.lerobot_format import pyarrow
from diffusion_policy.env_runner.recording import SCENE, Record

PARTS = ("episodes", "episodes_data.parquet", "dataset_summary.json")


def write_released(folder: Path, records: Sequence[Path], fps: float) -> None:
    """Writes the episodes of `records` (folders of `Record`, at least one) to `folder`, in their order."""
    arrow = pyarrow()
    writer, frames, successes = None, 0, 0
    try:
        for index, path in enumerate(records):
            record = Record.load(path)
            success = bool(record.success.any())
            videos = write_episode(folder, index, record, success, fps)
            table = arrow.table(columns_of(index, record, success, videos, fps))
            if writer is None:
                writer = arrow.parquet.ParquetWriter(folder / "episodes_data.parquet", table.schema)
            writer.write_table(table)
            frames, successes = frames + len(record), successes + success
    finally:
        if writer is not None:
            writer.close()
    summary = {"total_episodes": len(records), "total_frames": frames, "successful_episodes": successes}
    write_json(folder / "dataset_summary.json", summary)


def write_episode(folder: Path, index: int, record: Record, success: bool, fps: float) -> dict[str, str]:
    """The folder of one episode; returns the paths of its videos, relative to `folder`, by camera."""
    episode = Path("episodes") / f"episode_{index:06d}"
    (folder / episode / "videos").mkdir(parents=True)
    videos = {}
    for camera, source in record.videos.items():
        name = "episode_video" if camera == SCENE else camera
        videos[name] = str(episode / "videos" / f"{name}.mp4")
        link_or_copy(source, folder / videos[name])
    metadata = {
        "episode_idx": index,
        "length": len(record),
        "success": success,
        "total_reward": float(record.reward.sum()),
        "video_paths": videos,
        "timestamps": time_stamps(record, fps).tolist(),
    }
    write_json(folder / episode / "metadata.json", metadata)
    return videos


def columns_of(
    index: int, record: Record, success: bool, videos: Mapping[str, str], fps: float
) -> dict[str, np.ndarray | list[Any]]:
    """The columns of one episode's rows."""
    rows = len(record)
    columns: dict[str, np.ndarray | list[Any]] = {
        "episode_idx": np.full(rows, index),
        "frame_idx": np.arange(rows),
        "timestamp": time_stamps(record, fps),
        "success": np.full(rows, success),
    }
    columns |= {f"action_{i}": values.astype(np.float64) for i, values in enumerate(record.action.T)}
    for name, vectors in record.vectors.items():
        columns |= {f"obs_{name}_{i}": values.astype(np.float64) for i, values in enumerate(vectors.T)}
    return columns | {f"video_{name}": [path] * rows for name, path in videos.items()}


def time_stamps(record: Record, fps: float) -> np.ndarray:
    """Seconds since the first frame, [T]; rounded, so that 3 / 10 is 0.3."""
    return np.round(np.arange(len(record)) / fps, 9)


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under a second name, where the disk has such names, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
