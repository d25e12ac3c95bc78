import imageio_ffmpeg
import numpy as np
import pytest
from toy_env import make_toy

from diffusion_policy.env_runner.video import VideoWriter


def read(path):
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    width, height = meta["size"]
    return meta, [np.frombuffer(frame, dtype=np.uint8).reshape(height, width, 3) for frame in frames]


def test_written_video_plays_back(tmp_path):
    path = tmp_path / "media" / "clip.mp4"
    writer = VideoWriter(path, fps=10)
    for level in (0, 100, 200):
        writer.add(np.full((32, 48, 3), level, dtype=np.uint8))
        assert not path.exists()  # only complete videos get the name
    assert writer.close() == path
    assert [p.name for p in path.parent.iterdir()] == ["clip.mp4"]
    meta, frames = read(path)
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    assert meta["size"] == (48, 32) and meta["fps"] == 10
    assert [round(float(frame.mean()), -1) for frame in frames] == [0, 100, 200]


def test_abort_leaves_nothing(tmp_path):
    writer = VideoWriter(tmp_path / "clip.mp4", fps=10)
    writer.add(np.zeros((32, 48, 3), dtype=np.uint8))
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_bad_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even"):
        VideoWriter(tmp_path / "clip.mp4", fps=10).add(np.zeros((31, 48, 3), dtype=np.uint8))
    writer = VideoWriter(tmp_path / "clip.mp4", fps=10)
    writer.add(np.zeros((32, 48, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="frame"):
        writer.add(np.zeros((32, 48, 3)))
    writer.abort()
    with pytest.raises(ValueError, match=".mp4"):
        VideoWriter(tmp_path / "clip.gif", fps=10)
    with pytest.raises(ValueError, match="no frames"):
        VideoWriter(tmp_path / "clip.mp4", fps=10).close()


def test_an_episode_is_recorded_frame_by_executed_action(tmp_path):
    env = make_toy(max_steps=6)
    env.reset(seed=6, video_path=tmp_path / "e.mp4")
    env.step(np.zeros((4, 2)))
    outcome = env.step(np.zeros((4, 2))).outcome
    assert outcome.video == str(tmp_path / "e.mp4")
    _, frames = read(tmp_path / "e.mp4")
    assert len(frames) == outcome.env_steps == 6


def test_an_interrupted_episode_leaves_no_video(tmp_path):
    env = make_toy()
    env.reset(seed=6, video_path=tmp_path / "e.mp4")
    env.step(np.zeros((4, 2)))
    env.close()
    assert list(tmp_path.iterdir()) == []
