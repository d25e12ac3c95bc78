"""Recordings of a small robot, and a policy for it in the original project's checkpoint format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from diffusion_policy.common.config import register_resolvers, to_plain
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer
from tests.original_checkpoints import image_config, image_payload, saved

CAMERA, POSE, ACTIONS = (3, 240, 320), 7, 10
LENGTHS = (6, 5, 7, 4, 6)  # rows of the episodes


def robot_checkpoint(path: Path) -> Path:
    """A random policy on a camera `camera0` 3x240x320 and a `pose` of 7 numbers, for an action of 10."""
    register_resolvers()
    meta = {
        "obs": {"camera0": {"shape": list(CAMERA), "type": "rgb"}, "pose": {"shape": [POSE], "type": "low_dim"}},
        "action": {"shape": [ACTIONS]},
    }
    config = image_config("peg_insertion", meta, [216, 288], n_emb=32)
    torch.manual_seed(0)
    policy = build_policy({"policy": to_plain(OmegaConf.create(config))["policy"]}).requires_grad_(False)
    for parameter in policy.model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    reach = torch.linspace(0.1, 2.0, ACTIONS)
    fields = {
        "action": FieldNormalizer.fit(torch.stack([-reach, reach])),
        "camera0": FieldNormalizer.image(),
        "pose": FieldNormalizer.fit(torch.stack([-torch.ones(POSE), torch.ones(POSE)])),
    }
    policy.set_normalizer(LinearNormalizer(fields))
    return saved(path, image_payload(policy, config))


def rows(size: tuple[int, int] = CAMERA[1:]) -> dict[str, np.ndarray]:
    """image uint8 [N, H, W, 3], pose float32 [N, 7] and action float32 [N, 10] of all episodes."""
    rng, count = np.random.default_rng(0), sum(LENGTHS)
    coarse = rng.integers(0, 255, (count, 6, 8, 3), dtype=np.uint8)
    return {
        "image": coarse.repeat(size[0] // 6, axis=1).repeat(size[1] // 8, axis=2),
        "pose": rng.uniform(-1, 1, (count, POSE)).astype(np.float32),
        "action": rng.uniform(-0.1, 0.1, (count, ACTIONS)).astype(np.float32),
    }


def write_hdf5(path: Path, values: dict[str, np.ndarray]) -> Path:
    import h5py

    ends = np.cumsum(LENGTHS)
    with h5py.File(path, "w") as file:
        for index, (length, end) in enumerate(zip(LENGTHS, ends)):
            for name, array in values.items():
                place = "actions" if name == "action" else f"obs/{name}"
                file[f"data/demo_{index}/{place}"] = array[end - length : end]
    return path


def write_zarr(path: Path, values: dict[str, np.ndarray], chunk: int = 5) -> Path:
    import zarr

    group = zarr.open_group(str(path), mode="w")
    arrays = {**{f"data/{name}": array for name, array in values.items()}, "meta/episode_ends": np.cumsum(LENGTHS)}
    for name, array in arrays.items():
        made = group.create_array(name, shape=array.shape, chunks=(chunk, *array.shape[1:]), dtype=array.dtype)
        made[:] = array
    return path


def write_lerobot_v2(folder: Path, values: dict[str, np.ndarray]) -> Path:
    """A LeRobotDataset v2.1: a Parquet file and a video for each episode."""
    import imageio_ffmpeg
    import pyarrow
    import pyarrow.parquet

    ends, fps = np.cumsum(LENGTHS), 10
    height, width = values["image"].shape[1:3]
    features = {
        "observation.images.camera0": {"dtype": "video", "shape": [height, width, 3], "names": None},
        "observation.pose": {"dtype": "float32", "shape": [POSE], "names": None},
        "action": {"dtype": "float32", "shape": [ACTIONS], "names": None},
    }
    info = {
        "codebase_version": "v2.1",
        "fps": fps,
        "features": features,
        "chunks_size": 1000,
        "total_episodes": len(LENGTHS),
        "total_frames": int(ends[-1]),
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    videos = folder / "videos/chunk-000/observation.images.camera0"
    videos.mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    lines = [json.dumps({"episode_index": i, "tasks": ["peg"], "length": n}) for i, n in enumerate(LENGTHS)]
    (folder / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    for index, (length, end) in enumerate(zip(LENGTHS, ends)):
        mine = slice(end - length, end)
        table = {
            "observation.pose": values["pose"][mine].tolist(),
            "action": values["action"][mine].tolist(),
            "episode_index": [index] * length,
            "frame_index": list(range(length)),
        }
        pyarrow.parquet.write_table(pyarrow.table(table), folder / f"data/chunk-000/episode_{index:06d}.parquet")
        file = str(videos / f"episode_{index:06d}.mp4")
        writer = imageio_ffmpeg.write_frames(file, (width, height), fps=fps, codec="libx264", macro_block_size=1)
        writer.send(None)
        for frame in values["image"][mine]:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
    return folder
