"""Recorded episodes as a LeRobotDataset v3.0, without the `lerobot` package."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bac_workbench.lerobot.statistics import Statistics, of_colours, of_numbers
from bac_workbench.lerobot.videos import concatenate
from diffusion_policy.common.files import write_json
from diffusion_policy.dataset import lerobot_format as form
from diffusion_policy.env_runner.recording import Record

PARTS = ("videos", "data", "meta/episodes", form.TASKS, form.STATS, form.INFO)
MB = 1024**2


def write_lerobot(folder: Path, records: Sequence[Path], fps: float, task: str) -> None:
    """Writes the episodes of `records` (folders of `Record`, at least one) to `folder`, in their order.

    Features: `observation.state` holds the vectors that the policy sees, one behind the other, its names say which is
    which; `observation.images.<camera>` the videos; `action`; `next.reward`, `next.done`, `next.success`. See
    docs/howto/lerobot.md. The same records give the same bytes, and more of them the same beginning.

    Args:
        fps: frames per second of the videos and time stamps.
        task: what the episodes show, in words.
    """
    first = Record.load(records[0])
    features = features_of(first, fps)
    lengths = [len(Record.load(path)) for path in records]
    episodes = [{"episode_index": index, "tasks": [task], "length": length} for index, length in enumerate(lengths)]
    ends = np.cumsum(lengths)
    for episode, end in zip(episodes, ends.tolist()):
        episode |= {"dataset_from_index": end - episode["length"], "dataset_to_index": end}
    write_data(folder, records, episodes, features, fps)
    for camera in first.videos:
        write_videos(folder, camera, records, episodes, fps)
    totals = write_statistics(records, episodes, fps)
    write_episodes(folder, episodes)
    write_tasks(folder, [task])
    write_json(folder / form.STATS, as_lists(totals))
    info = {
        "codebase_version": form.VERSION,
        "robot_type": None,
        "total_episodes": len(episodes),
        "total_frames": int(ends[-1]),
        "total_tasks": 1,
        "chunks_size": form.CHUNK_FILES,
        "data_files_size_in_mb": form.DATA_FILE_MB,
        "video_files_size_in_mb": form.VIDEO_FILE_MB,
        "fps": whole(fps),
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": form.DATA_PATH,
        "video_path": form.VIDEO_PATH if first.videos else None,
        "features": features,
    }
    write_json(folder / form.INFO, info)


def whole(fps: float) -> int | float:
    """As an integer where it is one, as LeRobot expects it."""
    return int(fps) if fps == int(fps) else fps


def features_of(record: Record, fps: float) -> dict[str, dict[str, Any]]:
    """The entry `features` of info.json."""
    state = [f"{name}_{i}" for name, values in record.vectors.items() for i in range(values.shape[1])]
    features: dict[str, dict[str, Any]] = {}
    if state:
        features[form.STATE] = {"dtype": "float32", "shape": [len(state)], "names": state}
    for camera, size in record.sizes.items():
        features[form.IMAGES + camera] = video_feature(*size, fps)
    width = record.action.shape[1]
    features[form.ACTION] = {"dtype": "float32", "shape": [width], "names": [f"action_{i}" for i in range(width)]}
    for name, dtype in ((form.REWARD, "float32"), (form.DONE, "bool"), (form.SUCCESS, "bool")):
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    for name, dtype in form.INDEX_FEATURES.items():
        features[name] = {"dtype": dtype, "shape": [1], "names": None}
    return features


def video_feature(height: int, width: int, fps: float) -> dict[str, Any]:
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": whole(fps),
            "video.channels": 3,
            "has_audio": False,
        },
    }


def columns_of(record: Record, episode: dict[str, Any], fps: float) -> dict[str, np.ndarray]:
    """The columns of one episode, [T] or [T, D] by feature."""
    frames = np.arange(len(record))
    columns = {}
    if record.vectors:
        columns[form.STATE] = np.concatenate(list(record.vectors.values()), axis=1)
    return {
        **columns,
        form.ACTION: record.action,
        form.REWARD: record.reward,
        form.DONE: frames == len(record) - 1,
        form.SUCCESS: record.success,
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(len(record), episode["episode_index"]),
        "index": frames + episode["dataset_from_index"],
        "task_index": np.zeros(len(record), dtype=np.int64),
    }


def write_data(
    folder: Path,
    records: Sequence[Path],
    episodes: list[dict[str, Any]],
    features: dict[str, dict[str, Any]],
    fps: float,
) -> None:
    """The Parquet files below data/, a row group for each episode; says in `episodes` where each one went."""
    arrow = form.pyarrow()
    kinds = {"float32": arrow.float32(), "int64": arrow.int64(), "bool": arrow.bool_()}
    fields = [
        arrow.field(name, kinds[f["dtype"]] if f["shape"] == [1] else arrow.list_(kinds[f["dtype"]], f["shape"][0]))
        for name, f in features.items()
        if f["dtype"] != "video"
    ]
    schema = arrow.schema(fields)
    tables = (
        table_of(arrow, schema, columns_of(Record.load(path), episode, fps)) for path, episode in zip(records, episodes)
    )
    writer, current = None, None
    try:
        for number, (table, episode) in enumerate_files(tables, episodes, form.DATA_FILE_MB * MB, lambda t: t.nbytes):
            episode |= place("data", number)
            path = folder / form.DATA_PATH.format(**file_of(number))
            if number != current:
                if writer is not None:
                    writer.close()
                path.parent.mkdir(parents=True, exist_ok=True)
                writer, current = arrow.parquet.ParquetWriter(path, schema, compression="snappy"), number
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def table_of(arrow: Any, schema: Any, columns: dict[str, np.ndarray]) -> Any:
    arrays = []
    for field in schema:
        values = columns[field.name]
        if arrow.types.is_fixed_size_list(field.type):
            flat = arrow.array(np.ascontiguousarray(values, dtype=np.float32).ravel())
            arrays.append(arrow.FixedSizeListArray.from_arrays(flat, field.type.list_size))
        else:  # also a vector of length 1, which LeRobot keeps as a plain column
            arrays.append(arrow.array(np.ascontiguousarray(values).ravel(), type=field.type))
    return arrow.table(arrays, schema=schema)


def write_videos(
    folder: Path, camera: str, records: Sequence[Path], episodes: list[dict[str, Any]], fps: float
) -> None:
    """The videos of one camera; says in `episodes` where each one went."""
    key = form.IMAGES + camera
    paths = [path / f"{camera}.mp4" for path in records]
    files: dict[int, list[Path]] = {}
    start = 0
    largest = form.VIDEO_FILE_MB * MB
    for number, (path, episode) in enumerate_files(paths, episodes, largest, lambda path: path.stat().st_size):
        start = start if number in files else 0  # frames of the file so far
        files.setdefault(number, []).append(path)
        times = {"from_timestamp": start / fps, "to_timestamp": (start + episode["length"]) / fps}
        episode |= place(f"videos/{key}", number) | {f"videos/{key}/{name}": at for name, at in times.items()}
        start += episode["length"]
    for number, videos in files.items():
        concatenate(videos, folder / form.VIDEO_PATH.format(video_key=key, **file_of(number)))


def enumerate_files(
    items: Any, episodes: list[dict[str, Any]], largest: int, size_of: Any
) -> Iterator[tuple[int, tuple[Any, dict[str, Any]]]]:
    """(number of the file, (item, episode)): the next file is begun where one would grow beyond `largest` bytes."""
    number = filled = 0
    for item, episode in zip(items, episodes):
        size = size_of(item)
        if filled and filled + size > largest:
            number, filled = number + 1, 0
        filled += size
        yield number, (item, episode)


def file_of(number: int) -> dict[str, int]:
    return {"chunk_index": number // form.CHUNK_FILES, "file_index": number % form.CHUNK_FILES}


def place(what: str, number: int) -> dict[str, int]:
    return {f"{what}/{name}": index for name, index in file_of(number).items()}


def write_statistics(records: Sequence[Path], episodes: list[dict[str, Any]], fps: float) -> dict[str, Statistics]:
    """Puts the statistics of each episode into `episodes` and returns those of all."""
    everything: dict[str, list[np.ndarray]] = {}
    colours: dict[str, np.ndarray] = {}
    for path, episode in zip(records, episodes):
        record = Record.load(path)
        columns = columns_of(record, episode, fps)
        statistics = {name: of_numbers(values) for name, values in columns.items()}
        for name, values in columns.items():
            everything.setdefault(name, []).append(values)
        for camera, counts in record.colours.items():
            statistics[form.IMAGES + camera] = of_colours(counts, len(record))
            colours[camera] = colours.get(camera, 0) + counts
        episode |= {f"stats/{name}/{kind}": v.tolist() for name, s in statistics.items() for kind, v in s.items()}
    totals = {name: of_numbers(np.concatenate(values)) for name, values in everything.items()}
    frames = episodes[-1]["dataset_to_index"]
    return totals | {form.IMAGES + camera: of_colours(counts, frames) for camera, counts in colours.items()}


def write_episodes(folder: Path, episodes: list[dict[str, Any]]) -> None:
    arrow = form.pyarrow()
    path = folder / form.EPISODES_PATH.format(**file_of(0))
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow.parquet.write_table(arrow.Table.from_pylist([e | place("meta/episodes", 0) for e in episodes]), path)


def write_tasks(folder: Path, tasks: Sequence[str]) -> None:
    """The tasks by their words, which are the index of a pandas table: LeRobot reads it with pandas."""
    arrow = form.pyarrow()
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ],
        "pandas_version": "2.2.0",
    }
    table = arrow.table({"task_index": arrow.array(range(len(tasks)), arrow.int64()), "task": list(tasks)})
    arrow.parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), folder / form.TASKS)


def as_lists(statistics: dict[str, Statistics]) -> dict[str, dict[str, list]]:
    return {name: {kind: values.tolist() for kind, values in entry.items()} for name, entry in statistics.items()}
