"""The scripted experts' demonstrations of robomimic, as the training data has them."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

pytest.importorskip("robosuite")

from diffusion_policy.common.rotation import rotation_6d_to_matrix
from diffusion_policy.dataset.robomimic_scripted_dataset import load_robomimic_scripted
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.dataset.stored_demos import stored_settings
from diffusion_policy.demos.collect import collect
from diffusion_policy.demos.robomimic import AFTER_SUCCESS, RobomimicDemonstrator
from diffusion_policy.env.robomimic.definition import TASKS
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
SEEDS = (1, 2)  # one starts as the benchmark does


@pytest.fixture(scope="module")
def demonstrator():
    demonstrator = RobomimicDemonstrator("lift")
    yield demonstrator
    demonstrator.close()


@pytest.fixture(scope="module")
def demos(demonstrator):
    demos = [demonstrator.record(seed) for seed in SEEDS]
    assert None not in demos
    return demos


@pytest.fixture(scope="module")
def env():
    env = RobomimicEnv("lift")
    yield env
    env.close()


def recorded(obs):
    """An observation as a row of a demonstration."""
    return {
        name: np.round(255 * np.moveaxis(value, 0, -1)) if name.endswith("_image") else value
        for name, value in obs.items()
    }


def test_what_is_recorded(demos):
    for demo in demos:
        n_steps, images = len(demo["action"]), TASKS["lift"].image_shapes
        shapes = {name: (*shape[1:], shape[0]) if len(shape) == 3 else shape for name, shape in images.items()}
        assert {name: values.shape for name, values in demo.items()} == {
            name: (n_steps, *shape) for name, shape in {**shapes, "object_pose": (7,), "action": (10,)}.items()
        }
        assert {str(values.dtype) for name, values in demo.items() if not name.endswith("_image")} == {"float32"}
        assert all(
            values.dtype == np.uint8 and (values.std(axis=(1, 2, 3)) > 5).all()
            for name, values in demo.items()
            if name.endswith("_image")
        )
        assert 15 < n_steps <= 80
        height = demo["object_pose"][:, 2]
        assert height[0] < 0.84 < height[-AFTER_SUCCESS]  # on the table; in the air for a few steps
        assert height[-AFTER_SUCCESS - 1] < 0.841
        np.testing.assert_allclose(np.linalg.norm(demo["object_pose"][:, 3:], axis=1), 1, atol=1e-5)
        rotation = demo["action"][:, 3:9]
        np.testing.assert_allclose(rotation_6d_to_matrix(rotation)[:, :2].reshape(-1, 6), rotation, atol=1e-6)
        assert set(demo["action"][:, 9]) == {-1.0, 1.0} and demo["action"][0, 9] == -1.0


def test_some_start_as_the_benchmark_does_and_others_near(demos, env):
    starts = [recorded(env.reset(seed=seed)[0]) for seed in SEEDS]
    same = [
        all(np.array_equal(demo[name][0], start[name]) for name in start)
        for demo, start in zip(demos, starts, strict=True)
    ]
    assert any(same) and not all(same)
    for demo, start in zip(demos, starts, strict=True):
        np.testing.assert_allclose(demo["robot0_eef_pos"][0], start["robot0_eef_pos"], atol=0.06)
        np.testing.assert_allclose(demo["robot0_gripper_qpos"][0], start["robot0_gripper_qpos"], atol=2e-3)


def test_without_noise_the_actions_replay_to_the_observations(env):
    demonstrator = RobomimicDemonstrator("lift", noise=0.0)
    demo = demonstrator.record(SEEDS[0])
    demonstrator.close()
    obs, _ = env.reset(seed=SEEDS[0])
    successes = []
    for step, action in enumerate(demo["action"]):
        for name, value in recorded(obs).items():
            if name.endswith("_image"):
                assert np.abs(value - demo[name][step]).mean() < 0.5
            else:
                np.testing.assert_allclose(value, demo[name][step], atol=2e-3)
        obs, _, done, *_ = env.step(action)
        successes.append(done)
    assert successes.index(True) == len(successes) - AFTER_SUCCESS - 1


def test_noise_disturbs_the_motion_and_not_what_is_to_be_learnt():
    """The gripper is elsewhere, and the recorded actions lead from there to the cube, at the expert's own speed."""
    paths = []
    for noise in (0.0, 0.02):
        demonstrator = RobomimicDemonstrator("lift", image=False, noise=noise)
        paths.append(demonstrator.record(3))
        demonstrator.close()
    n_steps = min(len(path["action"]) for path in paths) - AFTER_SUCCESS
    gripper = [path["obs"][:n_steps, 10:13] for path in paths]
    assert np.abs(gripper[0] - gripper[1]).max() > 3e-3
    for path in paths:
        before = slice(1, 8)
        from_gripper = path["action"][before, :3] - path["obs"][before, 10:13]
        to_cube = path["object_pose"][before, :3] + [0, 0, 0.05] - path["obs"][before, 10:13]
        assert (np.sum(from_gripper * to_cube, axis=1) > 0).all()
        assert np.ptp(np.linalg.norm(from_gripper, axis=1)) < 3e-3


def test_a_seed_gives_one_demonstration_whatever_was_recorded_before(demos, demonstrator):
    again = demonstrator.record(SEEDS[0])
    for name, values in demos[0].items():
        np.testing.assert_array_equal(again[name], values)


def test_an_interrupted_run_goes_on(tmp_path, demos):
    class Interrupted(Exception):
        pass

    def interrupt(seed, kept):
        raise Interrupted

    output = tmp_path / "lift.zarr"
    make = partial(RobomimicDemonstrator, "lift")
    with pytest.raises(Interrupted):
        collect(make, output, 2, SEEDS[0], n_workers=0, on_seed=interrupt)
    part = output.with_name("lift.zarr.parts") / "000001.npz"
    written = part.stat().st_mtime_ns
    times = []
    buffer = collect(make, output, 2, SEEDS[0], n_workers=0, on_seed=lambda *_: times.append(part.stat().st_mtime_ns))
    assert times == [written, written]  # not made anew
    for index in range(2):
        for name, values in demos[index].items():
            np.testing.assert_array_equal(buffer.data[name][buffer.episode(index)], values)


def test_too_few_steps_make_no_demonstration(demonstrator, monkeypatch):
    monkeypatch.setattr(demonstrator, "max_steps", 10)
    assert demonstrator.record(0) is None


@pytest.mark.parametrize("task", ["can", "square"])
def test_the_other_tasks(task):
    demonstrator = RobomimicDemonstrator(task, image=False)
    demos = [demo for demo in map(demonstrator.record, SEEDS) if demo is not None]
    demonstrator.close()
    assert demos
    for demo in demos:
        assert demo["obs"].shape == (len(demo["action"]), TASKS[task].obs_dim)
        # Observations are a few ms older than the pose.
        np.testing.assert_allclose(demo["obs"][:, :7], demo["object_pose"], atol=0.02)


def test_impossible_settings():
    with pytest.raises(ValueError, match="no scripted expert for 'tool_hang', only for lift, can, square"):
        RobomimicDemonstrator("tool_hang")
    with pytest.raises(ValueError, match="cannot be -0.1"):
        RobomimicDemonstrator("lift", noise=-0.1)


def test_the_command(tmp_path, demos):
    output = tmp_path / "lift.zarr"
    command = [
        sys.executable,
        "scripts/make_demos.py",
        "task=lift_scripted_demos",
        f"output={output}",
        "n_episodes=1",
        "n_workers=1",
        f"seed_start={SEEDS[0]}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "1 episodes" in done.stdout, done.stderr
    settings = stored_settings(output)
    assert settings["source"] == "scripted" and settings["seeds"] == [SEEDS[0]]
    assert settings["demonstrator"]["task"] == "lift" and settings["demonstrator"]["reflections"] is False
    train, _ = load_robomimic_scripted(
        output, "lift", Windows(10, 1, 7, val_ratio=0.0), n_obs_steps=2, reflections=False
    )
    np.testing.assert_array_equal(train.vectors["action"], demos[0]["action"])
    np.testing.assert_array_equal(train.images["agentview_image"], demos[0]["agentview_image"])
