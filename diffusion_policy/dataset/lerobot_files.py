"""Reading a LeRobotDataset v3.0: its description, its episodes and its columns, with everything checked that a file may
claim."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset import lerobot_format as form
from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.lerobot_tables import AGAIN, numbers_of, read_table, vectors_of
from diffusion_policy.dataset.limits import Budget
from diffusion_policy.dataset.numbers import require_finite

NAME = re.compile(r"\w[\w.\-]{0,199}")  # of a feature; videos have a folder of this name
MOST_DIMENSIONS = 100_000
LARGEST_INFO = 16 << 20  # bytes
KINDS = {"float16": "f", "float32": "f", "float64": "f", "int8": "i", "int16": "i", "int32": "i", "int64": "i"}


@dataclass(frozen=True)
class Span:
    """Where an episode lies: rows `start` to `stop` of all, in the data file `file` (chunk, file); by camera, its video
    file and the time, in s, at which it begins there."""

    episode: int
    start: int
    stop: int
    file: tuple[int, int]
    videos: Mapping[str, tuple[tuple[int, int], float]]


class LeRobotFiles:
    """The data set in the folder `path`.

    Attributes:
        features: entries of info.json by name.
        fps: frames per second.
        spans: of the episodes, in their order.
        info_version: as info.json has it.

    Raises:
        DatasetError: it is missing, damaged, of another version, or claims more than its files can hold.
        MissingExtraError: pyarrow is not installed.
    """

    versions: tuple[str, ...] = (form.VERSION,)
    data_path, video_path = form.DATA_PATH, form.VIDEO_PATH

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        info = self._info()
        self.info_version: str = info["codebase_version"]
        self.features: dict[str, dict[str, Any]] = info["features"]
        self.fps = float(info["fps"])
        self.spans = self._spans(info)

    @property
    def rows(self) -> int:
        return self.spans[-1].stop

    @property
    def cameras(self) -> list[str]:
        """Features that are videos."""
        return [name for name, feature in self.features.items() if feature["dtype"] == "video"]

    @property
    def vectors(self) -> list[str]:
        """Features that are vectors of numbers."""
        return [n for n, f in self.features.items() if f["dtype"] in KINDS and n not in form.INDEX_FEATURES]

    def width(self, name: str) -> int:
        """Numbers in each row of a vector."""
        return self.features[name]["shape"][0]

    def component_names(self, name: str) -> list[str]:
        """What the components of a vector are called; empty where they have no names."""
        names = self.features[name].get("names")
        if isinstance(names, dict):  # {"motors": [...]}, as older recordings have it
            names = next(iter(names.values()), None)
        return [str(item) for item in names] if isinstance(names, list) and len(names) == self.width(name) else []

    def size(self, camera: str) -> tuple[int, int]:
        """Height and width of a camera's frames."""
        shape = self.features[camera]["shape"]
        return (shape[1], shape[2]) if shape[0] in (1, 3) and shape[2] not in (1, 3) else (shape[0], shape[1])

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Vectors float32 [N, D] by name, of all episodes one behind the other."""
        budget, parts = Budget(), {name: [] for name in names}
        for file in dict.fromkeys(span.file for span in self.spans):
            spans = [span for span in self.spans if span.file == file]
            path = self.data_file(file)
            table = read_table(path, ["episode_index", "frame_index", *names], budget)
            self._require_rows(path, table, spans)
            for name in names:
                parts[name].append(vectors_of(path, table, name, self.width(name)))
        values = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        ends = np.array([span.stop for span in self.spans])
        for name, array in values.items():
            require_finite(self.path, name, array, ends)
        return values

    def video(self, camera: str, episode: int) -> tuple[Path, int]:
        """The video file with an episode, and the number of its first frame there."""
        (chunk, file), begin = self.spans[episode].videos[camera]
        path = self.video_file(camera, chunk, file)
        if not path.is_file():
            raise DatasetError(f"{path} is missing, which has episode {episode} of {camera}: {AGAIN}")
        return path, round(begin * self.fps)

    def data_file(self, file: tuple[int, int]) -> Path:
        """Of a `Span.file`."""
        return self.path / self.data_path.format(chunk_index=file[0], file_index=file[1])

    def video_file(self, camera: str, chunk: int, file: int) -> Path:
        return self.path / self.video_path.format(video_key=camera, chunk_index=chunk, file_index=file)

    def _info(self) -> dict[str, Any]:
        path = self.path / form.INFO
        try:
            if not path.is_file():
                raise DatasetError(
                    f"no LeRobot data set at {self.path}: it has no {form.INFO}. Make one with: bac collect task=..."
                )
            if path.stat().st_size > LARGEST_INFO:
                raise ValueError(f"{path.stat().st_size:,} bytes are no description")
            info = json.loads(path.read_bytes())
            if not isinstance(info, dict) or "codebase_version" not in info:
                raise ValueError("it has no codebase_version")
            version = info["codebase_version"]
            if version not in self.versions:
                raise DatasetError(
                    f"{self.path} is a LeRobot data set of version {str(version)[:20]}, and {form.VERSION} is read: "
                    "lerobot converts earlier ones (python -m lerobot.scripts.convert_dataset_v21_to_v30)"
                )
            self._check_info(info)
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise DatasetError(f"{path} is damaged ({error}): {AGAIN}") from error
        return info

    def _check_info(self, info: dict[str, Any]) -> None:
        fps = info["fps"]
        if type(fps) not in (int, float) or not 0 < fps <= 10_000:
            raise ValueError(f"fps is {str(fps)[:40]}")
        if info["data_path"] != self.data_path or info.get("video_path") not in (None, self.video_path):
            raise ValueError(f"its files have other names than {self.data_path} and {self.video_path}")
        if not isinstance(info["features"], dict):
            raise ValueError("features are no names with descriptions")
        for name, feature in info["features"].items():
            if not NAME.fullmatch(name):
                raise ValueError(f"a feature is called {name[:60]!r}")
            shape = feature["shape"]
            sizes = isinstance(shape, list) and all(type(n) is int and 0 < n <= MOST_DIMENSIONS for n in shape)
            if not isinstance(feature["dtype"], str) or not sizes:
                raise ValueError(f"feature {name} is {str(feature)[:80]}")
            if feature["dtype"] == "video" and (len(shape) != 3 or 3 not in (shape[0], shape[2])):
                raise ValueError(f"the video {name} has shape {shape}, not [height, width, 3]")

    def _spans(self, info: dict[str, Any]) -> list[Span]:
        cameras = [name for name, feature in self.features.items() if feature["dtype"] == "video"]
        columns = ["episode_index", "length", "dataset_from_index", "dataset_to_index"]
        columns += ["data/chunk_index", "data/file_index"]
        columns += [f"videos/{c}/{n}" for c in cameras for n in ("chunk_index", "file_index", "from_timestamp")]
        paths = sorted((self.path / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        if not paths:
            raise DatasetError(f"{self.path} has no meta/episodes/chunk-000/file-000.parquet: {AGAIN}")
        budget, rows = Budget(), []
        for path in paths:
            rows += read_table(path, columns, budget).to_pylist()
        spans, end = [], 0
        for index, row in enumerate(sorted(rows, key=lambda row: (row["episode_index"] is None, row["episode_index"]))):
            begins = [row[f"videos/{c}/from_timestamp"] for c in cameras]
            if any(type(row[name]) is not int for name in columns if not name.endswith("timestamp")) or not all(
                isinstance(begin, float) and 0 <= begin < 1e9 for begin in begins
            ):
                raise DatasetError(f"{self.path}/meta/episodes has no numbers for episode {index}: {AGAIN}")
            start, stop = row["dataset_from_index"], row["dataset_to_index"]
            if row["episode_index"] != index or start != end or stop <= start or stop - start != row["length"]:
                raise DatasetError(
                    f"{self.path}/meta/episodes: episode {row['episode_index']} has {row['length']} rows, {start} to "
                    f"{stop}, after {index} episodes with {end} rows in all: {AGAIN}"
                )
            videos = {c: (self._numbers(row, f"videos/{c}"), begin) for c, begin in zip(cameras, begins)}
            spans.append(Span(index, start, stop, self._numbers(row, "data"), videos))
            end = stop
        if len(spans) != info.get("total_episodes") or end != info.get("total_frames"):
            raise DatasetError(
                f"{self.path}/{form.INFO} counts {info.get('total_episodes')} episodes with {info.get('total_frames')} "
                f"frames, and meta/episodes has {len(spans)} with {end}: {AGAIN}"
            )
        if not spans:
            raise DatasetError(f"{self.path} has no episodes")
        return spans

    def _numbers(self, row: dict[str, Any], what: str) -> tuple[int, int]:
        chunk, file = row[f"{what}/chunk_index"], row[f"{what}/file_index"]
        if not (0 <= chunk < 10**6 and 0 <= file < 10**6):
            raise DatasetError(f"{self.path}/meta/episodes names {what} file {chunk}, {file}: {AGAIN}")
        return chunk, file

    def _require_rows(self, path: Path, table: Any, spans: Sequence[Span]) -> None:
        """The rows of a data file are those of its episodes, in their order."""
        episodes = np.concatenate([np.full(span.stop - span.start, span.episode) for span in spans])
        frames = np.concatenate([np.arange(span.stop - span.start) for span in spans])
        for name, wanted in (("episode_index", episodes), ("frame_index", frames)):
            got = numbers_of(path, table, name)
            if len(got) != len(wanted):
                raise DatasetError(f"{path} has {len(got)} rows, and its episodes {len(wanted)}: {AGAIN}")
            if (different := np.flatnonzero(got != wanted)).size:
                row = int(different[0])
                raise DatasetError(f"{path}, row {row}: {name} is {got[row]} instead of {wanted[row]}: {AGAIN}")
