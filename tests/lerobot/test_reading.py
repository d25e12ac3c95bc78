"""A LeRobot data set as training windows: which features become what, and that nothing in a file is believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffusion_policy.dataset import lerobot_format as form
from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.lerobot_dataset import load_lerobot
from diffusion_policy.dataset.sequence_dataset import Windows

WINDOWS = Windows(horizon=3, pad_before=1, pad_after=1, val_ratio=0)
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.eye/chunk-000/file-000.mp4"
SEEN = {
    "eye": {"shape": [3, 16, 16], "type": "rgb"},
    "grip": {"shape": [1], "type": "low_dim"},
    "arm": {"shape": [3], "type": "low_dim"},
}


def load(path, **options):
    return load_lerobot(path, WINDOWS, **{"obs_dim": 4, "action_dim": 2, **options})[0]


def load_images(path, obs=SEEN, **options):
    return load_lerobot(path, WINDOWS, shape_meta={"obs": obs, "action": {"shape": [2]}}, **options)[0]


def edit_info(path: Path, **changes) -> None:
    info = json.loads((path / form.INFO).read_text())
    (path / form.INFO).write_text(json.dumps({**info, **changes}))


def edit_table(path: Path, **columns) -> None:
    """Puts other columns into a Parquet file; None takes one away."""
    table = pq.read_table(path)
    for name, values in columns.items():
        if values is None:
            table = table.drop_columns([name])
        else:
            table = table.set_column(table.schema.names.index(name), name, values)
    pq.write_table(table, path)


def test_a_vector_and_the_action(dataset, loaded):
    data = load(dataset)
    rows = np.concatenate([np.concatenate([r.vectors["arm"], r.vectors["grip"]], axis=1) for r in loaded])
    assert np.array_equal(data.fields["obs"], rows)
    assert np.array_equal(data.fields["action"], np.concatenate([r.action for r in loaded]))
    assert len(data) == 5 + 3 + 4  # windows never reach into another episode
    assert data.fit_normalizer().normalize({"obs": data.fields["obs"]})["obs"].abs().max() <= 1


def test_images_and_named_components(dataset, loaded):
    data = load_images(dataset, n_obs_steps=2)
    item = data[0]
    assert item["eye"].shape == (2, 3, 16, 16) and item["action"].shape == (3, 2)
    assert np.array_equal(data.vectors["arm"], np.concatenate([r.vectors["arm"] for r in loaded]))
    assert np.array_equal(data.vectors["grip"], np.concatenate([r.vectors["grip"] for r in loaded]))
    brightness = data.images["eye"].reshape(12, -1).mean(axis=1)  # of every frame of every episode, in their order
    assert np.abs(brightness - 15 * np.arange(12)).max() < 3
    before = (dataset.parent / "lamp.cache" / "eye.npy").stat().st_mtime_ns
    load_images(dataset)
    assert (dataset.parent / "lamp.cache" / "eye.npy").stat().st_mtime_ns == before


def test_other_features_by_name_by_components_and_joined(dataset):
    part = load(dataset, obs_dim=2, features={"obs": "observation.state:1:3"})
    assert part.fields["obs"][0].tolist() == [1, 2]
    joined = load(dataset, obs_dim=3, features={"obs": ["observation.state:3:4", "action"], "action": None})
    assert joined.fields["obs"][6].tolist() == [6, -1, 1]
    other = load_images(dataset, {"top": SEEN["eye"]}, features={"top": "observation.images.eye"})
    assert other.images["top"].shape == (12, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"obs_dim": 5}, r"has no obs of 5 numbers: its features for it are observation.state, with 4. Name others"),
        ({"features": {"obs": "observation.state:2:9"}}, "observation.state:2:9, with 2"),
        ({"features": {"obs": "state"}}, r"has no such vector; it has observation.state \[4\], action \[2\]"),
        ({"features": {"obs": "observation.images.eye"}}, "has no such vector"),
        ({"features": {"image": "action"}}, "names image, and the policy has obs, action"),
        ({"obs_dim": None}, "neither obs_dim and action_dim nor shape_meta"),
    ],
)
def test_features_that_do_not_fit_are_named_with_what_there_is(dataset, options, message):
    with pytest.raises(DatasetError, match=message):
        load(dataset, **options)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("front", [3, 16, 16], r"has no video observation.images.front for the image front: name it with .*eye \[16"),
        ("eye", [3, 32, 32], r"has frames \[3, 16, 16\], and eye of the policy is \[3, 32, 32\]"),
    ],
)
def test_images_that_do_not_fit(dataset, name, shape, message):
    with pytest.raises(DatasetError, match=message):
        load_images(dataset, {name: {"shape": shape, "type": "rgb"}})


def not_a_data_set(path):
    shutil.rmtree(path / "meta")


def earlier_version(path):
    edit_info(path, codebase_version="v2.1")


def info_cut_short(path):
    (path / form.INFO).write_bytes((path / form.INFO).read_bytes()[:300])


def deeply_nested(path):
    (path / form.INFO).write_text("[" * 100_000)


def outside(path):
    edit_info(path, data_path="../../{chunk_index}.parquet")


def code_in_a_name(path):
    edit_info(path, features={"../../x": {"dtype": "video", "shape": [16, 16, 3]}})


def huge_shape(path):
    edit_info(path, features={"observation.state": {"dtype": "float32", "shape": [10**15], "names": None}})


def more_episodes_said(path):
    edit_info(path, total_episodes=4)


def no_rate(path):
    edit_info(path, fps=0)


def garbage(path):
    (path / DATA).write_bytes(b"PAR1" + bytes(range(256)) * 9 + b"PAR1")


def cut_short(path):
    (path / DATA).write_bytes((path / DATA).read_bytes()[:-100])


def absent(path):
    (path / DATA).unlink()


def no_episodes(path):
    (path / EPISODES).unlink()


def overlapping(path):
    edit_table(path / EPISODES, dataset_from_index=pa.array([0, 4, 8]))


def repeated(path):
    edit_table(path / EPISODES, episode_index=pa.array([0, 1, 1]))


def nothing_known(path):
    edit_table(path / EPISODES, length=pa.array([None, None, None], pa.int64()))


def far_away(path):
    edit_table(path / EPISODES, **{"data/file_index": pa.array([10**15] * 3)})


def column_gone(path):
    edit_table(path / DATA, action=None)


def exchanged(path):
    edit_table(path / DATA, episode_index=pa.array([1, *[0] * 4, 1, 1, 0, *[2] * 4]))


def ragged(path):
    edit_table(path / DATA, action=pa.array([[0.0, 1.0]] * 11 + [[0.0, 1.0, 2.0]]))


def words(path):
    edit_table(path / DATA, action=pa.array([["a", "b"]] * 12))


def empty_values(path):
    edit_table(path / DATA, action=pa.array([[0.0, None]] * 12))


def not_finite(path):
    edit_table(path / DATA, action=pa.array([[0.0, 1.0]] * 6 + [[0.0, float("nan")]] * 6))


def much_from_little(path):
    """A few bytes that stand for hundreds of megabytes."""
    rows = 8_000_000
    edit_info(path, total_frames=rows, total_episodes=1)
    columns = pq.read_table(path / EPISODES).slice(0, 1)
    for name, value in (("length", rows), ("dataset_to_index", rows)):
        columns = columns.set_column(columns.schema.names.index(name), name, pa.array([value]))
    pq.write_table(columns, path / EPISODES)
    zeros = pa.array(np.zeros(rows, dtype=np.int8))
    table = pa.table(dict.fromkeys(("episode_index", "frame_index", "action", "observation.state"), zeros))
    pq.write_table(table, path / DATA, compression="zstd", use_dictionary=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (not_a_data_set, "no LeRobot data set at .*lamp: it has no meta/info.json"),
        (earlier_version, "is a LeRobot data set of version v2.1, and v3.0 is read"),
        (info_cut_short, "info.json is damaged"),
        (deeply_nested, "info.json is damaged"),
        (outside, "its files have other names"),
        (code_in_a_name, "a feature is called '../../x'"),
        (huge_shape, "feature observation.state is"),
        (more_episodes_said, "counts 4 episodes with 12 frames, and meta/episodes has 3 with 12"),
        (no_rate, "fps is 0"),
        (garbage, "is no readable Parquet file"),
        (cut_short, "is no readable Parquet file"),
        (absent, "file-000.parquet is missing"),
        (no_episodes, "has no meta/episodes/chunk-000/file-000.parquet"),
        (overlapping, "episode 1 has 3 rows, 4 to 8, after 1 episodes with 5 rows"),
        (repeated, "episode 1 has 4 rows"),
        (nothing_known, "has no numbers for episode 0"),
        (far_away, "names data file 0, 1000000000000000"),
        (column_gone, "has no column action; it has"),
        (exchanged, "row 0: episode_index is 1 instead of 0"),
        (ragged, "is not 2 numbers in every row"),
        (words, "is not 2 numbers in every row"),
        (empty_values, "is not 2 numbers in every row"),
        (not_finite, "action that is not finite: nan in episode 1, row 1 .row 6 of all., column 1"),
        (much_from_little, "claims .* bytes, and .* are stored"),
    ],
)
def test_damaged_and_hostile_data_are_refused_and_named(dataset, damage, message):
    damage(dataset)
    with pytest.raises(DatasetError, match=message) as error:
        load(dataset)
    assert len(str(error.value)) < 600


def video_gone(path):
    (path / VIDEO).unlink()


def video_of_garbage(path):
    (path / VIDEO).write_bytes(bytes(range(256)) * 20)


def video_cut_short(path):
    (path / VIDEO).write_bytes((path / VIDEO).read_bytes()[:-900])


def list_of_files(path):
    """What ffmpeg would follow if it were asked what kind of file this is."""
    (path / VIDEO).write_text("ffconcat version 1.0\nfile /etc/hostname\n")


def another_size(path):
    info = json.loads((path / form.INFO).read_text())
    info["features"]["observation.images.eye"]["shape"] = [16, 18, 3]
    (path / form.INFO).write_text(json.dumps(info))


def begins_later(path):
    edit_table(path / EPISODES, **{"videos/observation.images.eye/from_timestamp": pa.array([0.0, 0.5, 1.3])})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (video_gone, "file-000.mp4 is missing, which has episode 0"),
        (video_of_garbage, "is no readable video"),
        (video_cut_short, "is no readable video|readable frames"),
        (list_of_files, "is no readable video"),
        (another_size, r"has frames of 16 x 16 instead of 16 x 18|has frames \[3, 16, 18\]"),
        (begins_later, "has 12 readable frames, and an episode needs those up to 16"),
    ],
)
def test_damaged_videos_are_refused_and_named(dataset, damage, message):
    damage(dataset)
    with pytest.raises(DatasetError, match=message):
        load_images(dataset)
