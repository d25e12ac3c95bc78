"""Reading a LeRobotDataset v2.0 or v2.1, in which each episode has files of its own.

Source: release 0.3 of huggingface/lerobot, lerobot/datasets/utils.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusion_policy.dataset import lerobot_format as form
from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.lerobot_files import LARGEST_INFO, LeRobotFiles, Span
from diffusion_policy.dataset.lerobot_tables import AGAIN

EPISODES = "meta/episodes.jsonl"
LARGEST_EPISODES = 256 << 20  # bytes


class LeRobotV2Files(LeRobotFiles):
    """As `LeRobotFiles`, of the earlier layout. `Span.file` is (chunk, episode)."""

    versions = ("v2.0", "v2.1")
    data_path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video_path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

    def data_file(self, file: tuple[int, int]) -> Path:
        return self.path / self.data_path.format(episode_chunk=file[0], episode_index=file[1])

    def video_file(self, camera: str, chunk: int, file: int) -> Path:
        return self.path / self.video_path.format(video_key=camera, episode_chunk=chunk, episode_index=file)

    def _spans(self, info: dict[str, Any]) -> list[Span]:
        path, size = self.path / EPISODES, info.get("chunks_size", form.CHUNK_FILES)
        try:
            if path.stat().st_size > LARGEST_EPISODES:
                raise ValueError(f"{path.stat().st_size:,} bytes are no list of episodes")
            if type(size) is not int or size < 1:
                raise ValueError(f"chunks_size of {form.INFO} is {str(size)[:40]}")
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            numbers = [(row["episode_index"], row["length"]) for row in rows]
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise DatasetError(f"{path} is damaged ({error}): {AGAIN}") from error
        spans: list[Span] = []
        end = 0
        for index, (episode, length) in enumerate(numbers):
            if episode != index or type(length) is not int or not 0 < length < 10**9:
                raise DatasetError(f"{path}: line {index + 1} has episode {episode} with {length} rows: {AGAIN}")
            file = (index // size, index)
            spans.append(Span(index, end, end + length, file, dict.fromkeys(self.cameras, (file, 0.0))))
            end += length
        if not spans or (len(spans), end) != (info.get("total_episodes"), info.get("total_frames")):
            raise DatasetError(
                f"{self.path}/{form.INFO} counts {info.get('total_episodes')} episodes with {info.get('total_frames')} "
                f"frames, and {EPISODES} has {len(spans)} with {end}: {AGAIN}"
            )
        return spans


def open_lerobot(path: str | Path) -> LeRobotFiles:
    """The LeRobot data set in a folder, whichever of the versions that are read it is of.

    Raises:
        DatasetError: see `LeRobotFiles`.
    """
    info = Path(path).expanduser() / form.INFO
    try:
        described = json.loads(info.read_bytes()) if info.is_file() and info.stat().st_size <= LARGEST_INFO else None
        version = described.get("codebase_version") if isinstance(described, dict) else None
    except (OSError, ValueError, RecursionError):
        version = None  # LeRobotFiles says what is wrong with it
    earlier = isinstance(version, str) and version in LeRobotV2Files.versions
    return LeRobotV2Files(path) if earlier else LeRobotFiles(path)
