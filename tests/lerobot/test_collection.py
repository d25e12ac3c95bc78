"""Collecting a data set: what is in it, that it goes on after an interruption, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from bac_workbench.lerobot import collection
from bac_workbench.lerobot.collection import collect
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.dataset.lerobot_files import LeRobotFiles


def run(settings, **options):
    return collect(load_experiment(settings), say=lambda line: None, **options)


def content(folder):
    """The bytes of every file of the data set, without what the collection keeps beside it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if ".collection" not in p.parts}


@pytest.mark.parametrize("layout", ["lerobot", "original"])
def test_killed_and_restarted_or_extended_gives_the_same_data_set(settings, tmp_path, layout):
    whole = run(settings(f"format={layout}", "n_episodes=3", f"output_dir={tmp_path}/whole")).output_dir
    broken = settings(f"format={layout}", "n_episodes=3", f"output_dir={tmp_path}/broken")

    def interrupt(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(broken, on_episode=interrupt)
    assert not content(tmp_path / "broken")  # whole or not at all
    assert len((tmp_path / "broken" / ".collection" / "episodes.jsonl").read_text().splitlines()) == 1
    finished = run(broken)
    assert content(finished.output_dir) == content(whole)
    assert finished.stats.chunks < 6  # the finished episode did not run again
    extended = tmp_path / "extended"
    for episodes in (1, 3):
        run(settings(f"format={layout}", f"n_episodes={episodes}", f"output_dir={extended}"))
    assert content(extended) == content(whole)


def test_states_and_frames_are_those_of_a_simulation_of_the_actions(settings):
    from diffusion_policy.dataset.lerobot_video import VideoReader
    from diffusion_policy.env_runner.pusht import make_keypoints_env, without_visibility

    made = run(settings())
    files = LeRobotFiles(made.output_dir)
    values = files.read(["observation.state", "action"])
    env = make_keypoints_env(legacy=True, render_size=256)
    camera = "observation.images.scene"
    reader = VideoReader(files.size(camera))
    for episode, result in enumerate(made.episodes):
        span = files.spans[episode]
        frames = reader.read(*files.video(camera, episode), span.stop - span.start)
        obs, _ = env.reset(seed=result.seed)
        for row, frame in zip(range(span.start, span.stop), frames, strict=True):
            assert np.array_equal(values["observation.state"][row], without_visibility(obs).astype(np.float32))
            assert np.abs(frame.astype(int) - env.render()).mean() < 1.5
            obs = env.step(values["action"][row])[0]
    reader.close()


def test_the_documented_layout(settings):
    made = run(settings("format=original"))
    folder = made.output_dir
    assert json.loads((folder / "dataset_summary.json").read_text()) == {
        "total_episodes": 2,
        "total_frames": 24,
        "successful_episodes": 0,
    }
    metadata = json.loads((folder / "episodes/episode_000001/metadata.json").read_text())
    assert (metadata["episode_idx"], metadata["length"], metadata["success"]) == (1, 12, False)
    assert metadata["video_paths"] == {"episode_video": "episodes/episode_000001/videos/episode_video.mp4"}
    assert metadata["timestamps"][:4] == [0.0, 0.1, 0.2, 0.3]
    assert metadata["total_reward"] == pytest.approx(made.episodes[1].sum_reward, rel=1e-6)
    table = pq.read_table(folder / "episodes_data.parquet")
    obs = [f"obs_obs_{i}" for i in range(20)]
    assert table.schema.names == [
        *("episode_idx", "frame_idx", "timestamp", "success", "action_0", "action_1", *obs, "video_episode_video")
    ]
    assert table["frame_idx"].to_pylist() == [*range(12), *range(12)]
    assert all((folder / path).is_file() for path in set(table["video_episode_video"].to_pylist()))


def test_only_successes(settings, monkeypatch):
    monkeypatch.setattr(collection, "TRIES_PER_SUCCESS", 3)
    with pytest.raises(ConfigError, match="0 of 3 episodes succeeded, which is too few for n_episodes=1"):
        run(settings("success_only=true", "n_episodes=1"))


def test_successes_count_in_their_order_whatever_finishes_first(settings):
    (result,) = run(settings("n_episodes=1")).episodes
    done = [dataclasses.replace(result, index=i, success=i % 2 == 1) for i in range(6)]
    chosen = collection.wanted(done, 2, success_only=True)
    assert [result.index for result in chosen] == [1, 3]
    assert [result.index for result in collection.wanted([*done[:2], *done[3:]], 2, success_only=True)] == [1]
    assert len(collection.wanted(done, 4, success_only=False)) == 4


def test_fewer_episodes_leave_no_file_of_the_others(settings, tmp_path):
    run(settings("format=original"))
    run(settings("format=original", "n_episodes=1"))
    assert [path.name for path in (tmp_path / "data" / "episodes").iterdir()] == ["episode_000000"]


def test_another_collection_is_refused(settings, tmp_path):
    run(settings("n_episodes=1"))
    with pytest.raises(ConfigError, match="holds another collection .seed 0 there, 1 now"):
        run(settings("n_episodes=1", "seed=1"))
    before = content(tmp_path / "data")
    run(settings("n_episodes=1", "seed=1", "overwrite=true"))
    assert content(tmp_path / "data") != before


def test_a_data_set_from_elsewhere_is_left_alone(settings, tmp_path):
    (tmp_path / "data" / "meta").mkdir(parents=True)
    (tmp_path / "data" / "meta" / "info.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a data set .meta/info.json. that cannot be added to"):
        run(settings())
    assert (tmp_path / "data" / "meta" / "info.json").read_text() == "{}"


def test_a_lost_record_is_named(settings, tmp_path):
    import shutil

    run(settings())
    shutil.rmtree(tmp_path / "data" / ".collection" / "records" / "seed_0000200001")
    with pytest.raises(ConfigError, match="lacks episode 1"):
        run(settings())
