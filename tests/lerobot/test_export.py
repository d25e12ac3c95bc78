"""What `write_lerobot` writes: the files and columns of LeRobotDataset v3.0."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bac_workbench.lerobot import export
from bac_workbench.lerobot.export import write_lerobot
from bac_workbench.lerobot.statistics import of_colours, of_numbers
from diffusion_policy.dataset import lerobot_format as form
from diffusion_policy.dataset.lerobot_files import LeRobotFiles
from diffusion_policy.dataset.lerobot_video import VideoReader


def test_the_columns_of_the_data(dataset, loaded):
    table = pq.read_table(dataset / "data/chunk-000/file-000.parquet")
    assert table.schema.field("observation.state").type == pa.list_(pa.float32(), 4)
    assert table["index"].to_pylist() == list(range(12))
    assert table["episode_index"].to_pylist() == [0] * 5 + [1] * 3 + [2] * 4
    assert table["frame_index"].to_pylist() == [*range(5), *range(3), *range(4)]
    assert np.allclose(table["timestamp"].to_pylist(), [n / 10 for n in [*range(5), *range(3), *range(4)]])
    assert table["next.done"].to_pylist() == [0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1]
    assert table["next.success"].to_pylist()[:5] == [0, 0, 1, 0, 0]
    assert np.array_equal(table["action"].to_pylist(), np.concatenate([record.action for record in loaded]))
    info = json.loads((dataset / form.INFO).read_text())
    assert info["features"]["observation.state"]["names"] == ["arm_0", "arm_1", "arm_2", "grip_0"]
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (3, 12, 10)


def test_files_are_begun_anew_before_they_grow_too_large(records, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(form, "DATA_FILE_MB", 0.0004)
    monkeypatch.setattr(form, "VIDEO_FILE_MB", 0.001)
    write_lerobot(tmp_path, records, 10.0, "x")
    assert len(list((tmp_path / "data").rglob("*.parquet"))) > 1 < len(list((tmp_path / "videos").rglob("*.mp4")))
    files = LeRobotFiles(tmp_path)
    values = files.read(["observation.state", "action"])
    assert np.array_equal(values["action"], np.concatenate([record.action for record in loaded]))
    reader = VideoReader((16, 16))
    for episode, span in enumerate(files.spans):
        first, *_ = reader.read(*files.video("observation.images.eye", episode), span.stop - span.start)
        assert abs(float(first.mean()) - 15 * span.start) < 5
    reader.close()


def test_statistics_are_those_of_all_frames(dataset, loaded):
    stats = json.loads((dataset / form.STATS).read_text())
    arm = np.concatenate([record.vectors["arm"] for record in loaded])
    state = stats["observation.state"]
    assert np.allclose(state["mean"][:3], arm.mean(axis=0)) and np.allclose(state["std"][:3], arm.std(axis=0))
    assert state["count"] == [12] and np.allclose(state["q50"][:3], np.median(arm, axis=0))
    eye = stats["observation.images.eye"]
    assert np.shape(eye["mean"]) == (3, 1, 1) and eye["min"][0][0][0] == 0 and eye["count"] == [12]
    levels = np.rint(np.arange(12) / 17 * 255) / 255
    assert np.allclose(np.ravel(eye["mean"]), levels.mean()) and np.allclose(np.ravel(eye["std"]), levels.std())
    episodes = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["stats/index/max"] for row in episodes] == [[4.0], [7.0], [11.0]]


def test_statistics_of_colours_agree_with_those_of_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 7))
    counts = np.stack([np.bincount(pixels[:, channel].ravel(), minlength=256) for channel in range(3)])
    found, expected = of_colours(counts, 4), of_numbers(np.moveaxis(pixels, 1, -1).reshape(-1, 3) / 255)
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(found[name].ravel(), expected[name]), name
    for name in ("q01", "q10", "q50", "q90", "q99"):  # a level that occurs, beside the interpolated one
        assert np.abs(found[name].ravel() - expected[name]).max() < 0.03, name


def test_the_tasks_are_a_table_that_pandas_indexes_by_their_words(dataset):
    table = pq.read_table(dataset / form.TASKS)
    assert table.to_pydict() == {"task_index": [0], "task": ["switch the lamp on"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_whole_rates_are_integers():
    assert export.whole(10.0) == 10 and isinstance(export.whole(10.0), int) and export.whole(12.5) == 12.5
