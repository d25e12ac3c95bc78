import imageio_ffmpeg
import numpy as np
import pytest
from toy_env import ToyEnv

from diffusion_policy.common.errors import InputError
from diffusion_policy.env_runner.multistep import MultiStep
from diffusion_policy.env_runner.recording import Record, RecordingEnv, record_folder


class ToyCamera(ToyEnv):
    """Also shows an image [3, 32, 32] whose colour is the step; drawn only where `frames` says so."""

    frames = True

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return self._shown(obs), info

    def step(self, action):
        obs, *rest = super().step(action)
        return self._shown(obs), *rest

    def _shown(self, obs):
        return {"state": obs, "eye": np.full((3, 32, 32), self.t / 10 if self.frames else 1.0)}


def levels(path):
    """The mean level of each frame of a video."""
    frames = imageio_ffmpeg.read_frames(str(path))
    next(frames)
    return np.array([np.frombuffer(frame, dtype=np.uint8).mean() for frame in frames])


def run(env, seed, chunk=4):
    """Rolls out an episode with actions that differ; returns all that were sent."""
    env.reset(seed=seed)
    sent, outcome = [], None
    while outcome is None:
        sent.append(np.random.default_rng(len(sent)).uniform(-1, 1, (chunk, 2)).astype(np.float32))
        outcome = env.step(sent[-1]).outcome
    return np.concatenate(sent), outcome


def test_frame_state_and_action_of_one_number_belong_together(tmp_path):
    env = MultiStep(RecordingEnv(ToyCamera(), tmp_path, 10, 9), 2, 4, 9)
    sent, outcome = run(env, seed=6)  # ends by itself after 11 steps, here after 9: within the third chunk
    record = Record.load(record_folder(tmp_path, 6))
    assert len(record) == outcome.env_steps == 9 < len(sent)
    assert np.array_equal(record.action, sent[:9])  # what was not executed is not there
    again = ToyEnv()
    obs = again.reset(seed=6)[0]
    for t, action in enumerate(record.action):
        assert np.array_equal(record.vectors["state"][t], obs.astype(np.float32))
        obs, reward, *_, info = again.step(action)
        assert record.reward[t] == np.float32(reward) and record.success[t] == info["is_success"]
    assert np.abs(levels(record.videos["scene"]) - 10 * np.arange(9)).max() < 4  # the codec's error
    assert np.abs(levels(record.videos["eye"]) - 25.5 * np.arange(9)).max() < 4  # none is left undrawn
    assert record.sizes == {"scene": (32, 48), "eye": (32, 32)}
    assert record.colours["scene"].sum(axis=1).tolist() == [9 * 32 * 48] * 3
    assert [row.nonzero()[0].tolist() for row in record.colours["scene"]] == [[10 * t for t in range(9)]] * 3


def test_recording_changes_nothing_that_the_policy_sees(tmp_path):
    plain, recorded = MultiStep(ToyEnv(), 2, 4, 9), MultiStep(RecordingEnv(ToyEnv(), tmp_path, 10, 9), 2, 4, 9)
    for env in (plain, recorded):
        env.first = env.reset(seed=3).obs, env.step(np.ones((4, 2))).obs
    for one, other in zip(plain.first, recorded.first):
        assert np.array_equal(one, other)


def test_an_episode_that_is_given_up_leaves_nothing(tmp_path):
    env = MultiStep(RecordingEnv(ToyEnv(), tmp_path, 10, 9), 2, 4, 9)
    env.reset(seed=6)
    env.step(np.zeros((4, 2)))
    env.reset(seed=0)
    assert len(list(tmp_path.iterdir())) == 1
    env.step(np.zeros((4, 2)))
    env.step(np.zeros((4, 2)))  # ends after 5 steps
    env.close()
    assert [path.name for path in tmp_path.iterdir()] == ["seed_0000000000"]


def test_without_the_scene_there_is_no_video(tmp_path):
    run(MultiStep(RecordingEnv(ToyEnv(), tmp_path, 10, 9, view=lambda obs: obs[:2], scene=False), 2, 4, 9), seed=0)
    record = Record.load(record_folder(tmp_path, 0))
    assert not record.videos and record.vectors["obs"].shape == (5, 2)


@pytest.mark.parametrize("damage", ["missing", "cut", "no video"])
def test_a_damaged_record_is_named(tmp_path, damage):
    run(MultiStep(RecordingEnv(ToyEnv(), tmp_path, 10, 9), 2, 4, 9), seed=0)
    steps = record_folder(tmp_path, 0) / "steps.npz"
    if damage == "missing":
        steps.unlink()
    elif damage == "cut":
        steps.write_bytes(steps.read_bytes()[:-200])
    else:
        (steps.parent / "scene.mp4").unlink()
    with pytest.raises(InputError, match="seed_0000000000 is not there or damaged"):
        Record.load(steps.parent)
