"""The oracle's demonstrations, as the training data has them."""

import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("pybullet")

from diffusion_policy.dataset.block_pushing_dataset import load_block_pushing, steps_towards
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.demos.block_pushing import BlockPushingDemonstrator
from diffusion_policy.env.block_pushing.block_pushing_env import BlockPushingEnv
from tests.conftest import ROOT


def test_recorded_actions_replay_to_the_recorded_observations():
    demonstrator = BlockPushingDemonstrator()
    demo = demonstrator.record(1)
    demonstrator.close()
    obs, action = demo["obs"], demo["action"]
    assert obs.dtype == action.dtype == np.float32 and obs.shape == (len(action), 16) and action.shape[1] == 2
    env = BlockPushingEnv()
    np.testing.assert_array_equal(env.reset(seed=1)[0], obs[0])  # each row is what was seen before its action
    for step in range(len(obs) - 1):
        seen, _, terminated, _, _ = env.step(action[step])
        np.testing.assert_array_equal(seen, obs[step + 1])
    assert terminated  # the last row is the state that ended the episode
    env.close()


def test_perturbations_are_executed_and_the_expert_comes_back():
    demonstrators = [BlockPushingDemonstrator(perturbation_rate=rate) for rate in (0.0, 0.1, 0.1)]
    plain, demo, again = (demonstrator.record(10_002) for demonstrator in demonstrators)
    np.testing.assert_array_equal(demo["obs"], again["obs"])
    np.testing.assert_array_equal(demo["obs"][0], plain["obs"][0])
    # Where the effector's target went, against the recorded actions.
    aside = [
        np.linalg.norm(np.diff(d["obs"][:, 8:10], axis=0) - d["action"][:-1], axis=1) > 1e-6 for d in (plain, demo)
    ]
    assert not aside[0].any() and 0.05 < aside[1].mean() < 0.6
    assert np.linalg.norm(demo["action"], axis=1).max() < 0.036  # the expert keeps its speed
    for d in (plain, demo):  # where it was heading tells what it does
        aim, intention = (torch.from_numpy(values) for values in (d["obs"][:, 8:10], d["intention"]))
        torch.testing.assert_close(steps_towards(intention, aim, aim), torch.from_numpy(d["action"]), atol=1e-6, rtol=0)
        assert 0.05 < 1 - intention[:, 3].isnan().float().mean() < 0.6  # of the time it circles
    blocks, targets = (demo["obs"][-1][[[start, start + 1] for start in starts]] for starts in ((0, 3), (10, 13)))
    distances = np.linalg.norm(blocks[:, None] - targets[None], axis=-1)
    assert min(np.diag(distances).max(), np.diag(distances[::-1]).max()) < 0.05  # both blocks are in a target each
    for demonstrator in demonstrators:
        demonstrator.close()
    with pytest.raises(ValueError, match="cannot be -0.1"):
        BlockPushingDemonstrator(perturbation_rate=-0.1)


def test_noise_is_executed_and_not_recorded():
    demonstrators = [BlockPushingDemonstrator(action_noise=0.005) for _ in range(2)]
    demo, again = (demonstrator.record(3) for demonstrator in demonstrators)
    np.testing.assert_array_equal(demo["obs"], again["obs"])
    off = np.diff(demo["obs"][:, 8:10], axis=0) - demo["action"][:-1]
    assert 0.004 < off.std() < 0.006 and len(off) < 350  # it is solved in spite of it
    assert np.linalg.norm(demo["action"], axis=1).max() < 0.036
    for demonstrator in demonstrators:
        demonstrator.close()
    with pytest.raises(ValueError, match="-0.1 m is negative"):
        BlockPushingDemonstrator(action_noise=-0.1)


def test_a_disturbed_demonstration_that_fails_is_left_out():
    demonstrator = BlockPushingDemonstrator(max_steps=20, perturbation_rate=0.1)
    assert demonstrator.record(10_002) is None
    demonstrator.close()


def test_the_step_limit_keeps_the_last_state_too():
    demonstrator = BlockPushingDemonstrator(max_steps=4)
    demo = demonstrator.record(0)
    demonstrator.close()
    assert demo["obs"].shape == (5, 16) and demo["action"].shape == (5, 2)


@pytest.mark.slow
def test_the_command(tmp_path):
    command = [
        sys.executable,
        "scripts/make_demos.py",
        "task=block_pushing",
        f"output={tmp_path / 'demos.zarr'}",
        "n_episodes=2",
        "seed_start=3",
        "n_workers=1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "2 episodes" in done.stdout, done.stderr
    train, _ = load_block_pushing(tmp_path / "demos.zarr", Windows(5, pad_before=2, val_ratio=0.0))
    demonstrator = BlockPushingDemonstrator()
    np.testing.assert_array_equal(train.fields["obs"][:20], demonstrator.record(3)["obs"][:20])
    demonstrator.close()


@pytest.mark.slow
def test_the_command_for_a_task_without_an_expert():
    done = subprocess.run(
        [sys.executable, "scripts/make_demos.py", "task=pusht_lowdim"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "no scripted expert" in done.stderr and "Traceback" not in done.stderr
