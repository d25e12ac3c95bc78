"""Push-T from images: the demonstrations' pixels where they are present, properties of the pictures everywhere."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")
pytest.importorskip("pygame")

import pygame

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.env.pusht import pusht_draw
from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env.pusht.pusht_image_env import PushTImageEnv
from diffusion_policy.env_runner.pusht import image_environment
from diffusion_policy.env_runner.task import Task, task_from_config
from tests.conftest import ROOT


@pytest.fixture
def drawn(monkeypatch):
    """Grows by one entry with every scene that is drawn."""
    calls, draw = [], pusht_draw.draw_scene
    monkeypatch.setattr(pusht_draw, "draw_scene", lambda *args: calls.append(1) or draw(*args))
    return calls


def play(env, n_steps, frames=True):
    """Observations and rewards of `n_steps` steps towards the block, which touch it."""
    observations, rewards, n_contacts = [env.reset(seed=7)[0]], [], 0
    for _ in range(n_steps):
        env.frames = frames
        obs, reward, _, _, info = env.step(np.array(env.block.position))
        observations.append(obs)
        rewards.append(reward)
        n_contacts += info["n_contacts"]
    assert n_contacts > 0
    return observations, rewards


# Pixels


@pytest.mark.parametrize("part", [0, 90, 159])
def test_recorded_images(pusht_zarr, part):
    if pygame.version.vernum >= (2, 6):
        pytest.skip("pygame 2.6 fills polygons differently; the recorded pixels need pygame 2.5 or older")
    zarr = pytest.importorskip("zarr")
    data = zarr.open(str(pusht_zarr), mode="r")["data"]
    size = data["img"].chunks[0]  # a part is one file of images
    rows = slice(part * size, (part + 1) * size)
    env = PushTImageEnv()
    for image, state in list(zip(data["img"][rows], data["state"][rows]))[::8]:
        obs, _ = env.reset(options={"state": state})
        np.testing.assert_array_equal(obs["image"], np.moveaxis(image, -1, 0) / np.float32(255))
        np.testing.assert_array_equal(obs["agent_pos"], state[:2])


def test_image_is_rgb_with_channels_first():
    obs, _ = PushTImageEnv().reset(options={"state": [400.0, 100.0, 120.0, 60.0, 0.0]})
    image = obs["image"]
    assert image.shape == (3, 96, 96) and image.dtype == np.float32

    def color(x, y):
        return (image[:, int(y / 512 * 96), int(x / 512 * 96)] * 255).tolist()

    assert color(60, 400) == [255, 255, 255]  # table
    assert color(246, 266) == [144, 238, 144]  # goal, the middle of its bar
    assert color(400, 100) == [78, 126, 255]  # agent
    assert color(120, 75) == [143, 163, 184]  # block
    np.testing.assert_array_equal(obs["agent_pos"], [400, 100])


def test_the_action_is_drawn_for_videos_only():
    env, plain = PushTImageEnv(), PushTEnv(render_action=False)
    env.reset(seed=7)
    plain.reset(seed=7)
    for action in ([60.0, 400.0], [300.0, 300.0]):
        obs, *_ = env.step(action)
        plain.step(action)
        np.testing.assert_array_equal(obs["image"], np.moveaxis(plain.render(96), -1, 0) / np.float32(255))
    assert (env.render(96) != plain.render(96)).any()
    assert env.render().shape == (96, 96, 3) and env.render(256).shape == (256, 256, 3)


# Drawing on demand


def test_frames_that_nobody_needs_are_not_drawn(drawn):
    shown, rewards = play(PushTImageEnv(), 12)
    assert len(drawn) == 13
    env = PushTImageEnv()
    hidden, same_rewards = play(env, 12, frames=False)
    assert len(drawn) == 14  # only after the reset
    assert rewards == same_rewards
    for seen, unseen in zip(shown[1:], hidden[1:]):
        assert (
            unseen["image"].shape == (3, 96, 96) and unseen["image"].dtype == np.float32 and not unseen["image"].any()
        )
        np.testing.assert_array_equal(unseen["agent_pos"], seen["agent_pos"])


def test_a_frame_does_not_depend_on_those_before_it():
    always, sometimes = PushTImageEnv(), PushTImageEnv()
    expected = play(always, 12)[0][-1]
    play(sometimes, 11, frames=False)
    sometimes.frames = True
    obs, *_ = sometimes.step(np.array(sometimes.block.position))
    np.testing.assert_array_equal(obs["image"], expected["image"])


def test_observations_lie_in_their_space():
    env = PushTImageEnv(legacy=True)
    assert env.observation_space.contains(env.reset(seed=0)[0])
    for frames in (True, False):
        env.frames = frames
        assert env.observation_space.contains(env.step([100.0, 100.0])[0])


# In the evaluation loop


@pytest.fixture
def section():
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("train", ["task=pusht_image"]).task


def test_published_settings(section):
    task = task_from_config(section, n_train=6, n_test=50)
    environment, chunking = task.environment, task.chunking
    assert environment.obs_shapes == {"image": (3, 96, 96), "agent_pos": (2,)} and environment.action_dim == 2
    assert (chunking.n_obs_steps, chunking.n_action_steps, environment.max_steps) == (2, 8, 300)
    assert [e.seed for e in task.episodes()] == [*range(6), *range(100_000, 100_050)]


def test_a_chunk_draws_what_the_policy_sees(drawn):
    slot = Task("pusht_image", image_environment()).make_slot()
    obs = slot.reset(seed=0).obs
    assert {name: (array.shape, array.dtype) for name, array in obs.items()} == {
        "image": ((2, 3, 96, 96), np.float32),
        "agent_pos": ((2, 2), np.float32),
    }
    np.testing.assert_array_equal(obs["agent_pos"], [[222, 97]] * 2)  # legacy reset of seed 0
    assert len(drawn) == 1
    obs = slot.step(np.linspace([222.0, 97.0], [300.0, 300.0], 8)).obs
    assert len(drawn) == 3 and obs["image"].any(axis=(1, 2, 3)).all()
    assert (obs["image"][0] != obs["image"][1]).any()


def test_the_config_describes_the_task(section):
    task = task_from_config(section)
    environment, policy = task.environment, section.policy
    shapes = {name: tuple(entry.shape) for name, entry in policy.shape_meta.obs.items()}
    assert shapes == environment.obs_shapes and list(policy.shape_meta.action.shape) == [environment.action_dim]
    assert (task.chunking.n_obs_steps, task.chunking.n_action_steps) == (policy.n_obs_steps, policy.n_action_steps)
