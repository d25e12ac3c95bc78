"""Relative actions of recorded demonstrations converted into absolute ones, in the simulator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("robosuite")

import h5py
import robosuite

from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.demos.absolute_actions import convert_actions
from diffusion_policy.demos.action_converter import ActionConverter
from diffusion_policy.env.robomimic.definition import env_metadata, task_named
from diffusion_policy.env.robomimic.robomimic_env import RobomimicEnv
from diffusion_policy.env_runner.robomimic_starts import RecordedStarts
from tests.conftest import ROOT

HUMAN = Path(robosuite.__file__).parent / "models" / "assets" / "demonstrations" / "lift" / "demo.hdf5"
slow = pytest.mark.slow


def write(path, task, demos):
    """Demonstrations (states, actions) in the form of robomimic's low_dim.hdf5; they are observed in the simulator."""
    definition, env = task_named(task), RobomimicEnv(task, image=False, abs_action=False)
    env.reset(seed=0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({**env_metadata(definition, abs_action=False), "env_version": "1.4.1"})
        for index, (states, actions) in enumerate(demos):
            data[f"demo_{index}/states"], data[f"demo_{index}/actions"] = states, actions
            observed = [observe(env.simulation, state) for state in states]
            for name in definition.lowdim_shapes:
                raw = "object-state" if name == "object" else name
                data[f"demo_{index}/obs/{name}"] = np.stack([obs[raw] for obs in observed])
    env.close()
    return path


def observe(simulation, state):
    simulation.sim.set_state_from_flattened(state)
    simulation.sim.forward()
    return simulation._get_observations(force_update=True)


def human_demonstrations(length=None):
    """(states, actions) of the demonstrations that come with robosuite."""
    with h5py.File(HUMAN) as file:
        return [(demo["states"][:length], demo["actions"][:length]) for demo in file["data"].values()]


def played(task, n_steps=12):
    """(states, actions) of an episode of random actions in this simulator."""
    env, rng = RobomimicEnv(task, image=False, abs_action=False), np.random.default_rng(0)
    env.reset(seed=0)
    actions = rng.uniform(-1, 1, (n_steps, *env.action_space.shape))
    states = []
    for action in actions:
        states.append(env.state())
        env.step(action)
    env.close()
    return np.stack(states), actions


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The first steps of the human demonstrations."""
    return write(tmp_path_factory.mktemp("robomimic") / "low_dim.hdf5", "lift", human_demonstrations(20))


def actions_of(path):
    with h5py.File(path) as file:
        return [file[f"data/demo_{index}/actions"][...] for index in range(len(file["data"]))]


# What the actions do


@slow
@pytest.mark.parametrize("task", ["lift", "transport"])
def test_a_step_of_an_absolute_action_ends_where_that_of_the_relative_one_did(tmp_path, task):
    path = write(tmp_path / "low_dim.hdf5", task, [played(task)])
    (done,) = convert_actions(task, path, tmp_path / "low_dim_abs.hdf5", n_workers=0)
    for error in (done.relative_error, done.absolute_error):
        assert error[0] < 1e-4 and error[1] < 1e-3  # m, rad: not 0 as restored states lack the contacts' history
    np.testing.assert_allclose(done.absolute_error, done.relative_error, atol=1e-6)
    relative, absolute = actions_of(path)[0], actions_of(tmp_path / "low_dim_abs.hdf5")[0]
    np.testing.assert_array_equal(absolute[:, 6::7], relative[:, 6::7])  # grippers


@slow
def test_the_converted_human_demonstrations_lift_the_cube(tmp_path):
    """Through the whole path of a policy's actions: file, data set, six numbers for rotations, environment."""
    path = write(tmp_path / "low_dim.hdf5", "lift", human_demonstrations())
    convert_actions("lift", path, tmp_path / "low_dim_abs.hdf5", n_workers=0, evaluate=False)
    train, _ = load_robomimic_lowdim(tmp_path / "low_dim_abs.hdf5", "lift", Windows(10, val_ratio=0))
    actions = train.fields["action"].numpy()
    env = RecordedStarts(RobomimicEnv("lift", image=False), tmp_path / "low_dim_abs.hdf5", seeds=range(3))
    start = 0
    for index, (states, _) in enumerate(human_demonstrations()):
        env.reset(seed=index)
        assert any(env.step(action)[2] for action in actions[start : start + len(states)]), f"demonstration {index}"
        start += len(states)
    env.close()


def test_an_action_aims_at_where_the_gripper_is_plus_its_change(short):
    relative, states = actions_of(short)[0], human_demonstrations(20)[0][0]
    absolute = ActionConverter("lift", short, evaluate=False).record(0)["actions"]
    env = RobomimicEnv("lift", image=False)
    env.reset(seed=0)
    positions = np.stack([observe(env.simulation, state)["robot0_eef_pos"] for state in states])
    env.close()
    np.testing.assert_allclose(absolute[:, :3], positions + 0.05 * relative[:, :3], atol=1e-9)


def test_an_action_that_does_not_rotate_keeps_the_orientation_last_aimed_at(tmp_path):
    states, actions = human_demonstrations(8)[0]
    actions[:, 3:6] = 0
    actions[2, 3:6] = 0.3, -0.2, 0.5
    path = write(tmp_path / "low_dim.hdf5", "lift", [(states, actions)])
    aimed = ActionConverter("lift", path, evaluate=False).record(0)["actions"][:, 3:6]
    assert len({tuple(row) for row in aimed[:2]}) == 1 and len({tuple(row) for row in aimed[2:]}) == 1
    assert not np.allclose(aimed[1], aimed[2], atol=0.1)


# The file


def test_everything_else_in_the_file_stays(short, tmp_path):
    output = tmp_path / "low_dim_abs.hdf5"
    before = short.read_bytes()
    convert_actions("lift", short, output, n_workers=0, evaluate=False)
    assert short.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [output.name]
    with h5py.File(short) as source, h5py.File(output) as converted:
        for index in range(3):
            for name in ("states", "obs/object", "obs/robot0_eef_pos"):
                np.testing.assert_array_equal(
                    converted[f"data/demo_{index}/{name}"], source[f"data/demo_{index}/{name}"]
                )
        args = json.loads(converted["data"].attrs["env_args"])
        assert args["env_kwargs"]["controller_configs"]["control_delta"] is False
        record = json.loads(converted["data"].attrs["absolute_actions"])
    assert record["robosuite"] == robosuite.__version__ and record["source"] == "low_dim.hdf5"


def test_an_interrupted_conversion_goes_on_where_it_stopped(short, tmp_path):
    output, complete = tmp_path / "low_dim_abs.hdf5", tmp_path / "complete_abs.hdf5"
    convert_actions("lift", short, complete, n_workers=0, evaluate=False)

    def stop(conversion, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_actions("lift", short, output, n_workers=0, evaluate=False, on_demo=stop)
    first = output.with_name(output.name + ".parts") / "000000.npz"
    assert not output.exists() and first.exists()
    with np.load(first) as arrays:
        mark = {"actions": arrays["actions"] + 1}  # shows whether it is used
    np.savez(first, **mark)
    convert_actions("lift", short, output, n_workers=0, evaluate=False)
    np.testing.assert_array_equal(actions_of(output)[0], mark["actions"])
    np.testing.assert_array_equal(actions_of(output)[1:], actions_of(complete)[1:])


@slow
def test_a_complete_conversion_is_not_repeated_and_not_overwritten(short, tmp_path):
    output = tmp_path / "low_dim_abs.hdf5"
    done = convert_actions("lift", short, output, n_workers=0)
    stamp = output.stat().st_mtime_ns
    assert convert_actions("lift", short, output, n_workers=0) == done and output.stat().st_mtime_ns == stamp
    with pytest.raises(
        DatasetError, match="is there already and was made from another file or in another way: remove it"
    ):
        convert_actions("lift", write(tmp_path / "low_dim.hdf5", "lift", human_demonstrations(5)), output, n_workers=0)
    with pytest.raises(DatasetError, match="the actions of demonstration 0 are absolute already"):
        convert_actions("lift", output, tmp_path / "again.hdf5", n_workers=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: file["data"].attrs.update(env_args=json.dumps(env_metadata(task_named("can"), False))),
            "of PickPlaceCan",
        ),
        (lambda file: file["data"].pop("demo_1/states"), "demo_1 has no states"),
        (
            lambda file: (
                file["data"].pop("demo_0/states"),
                file["data"].update({"demo_0/states": np.zeros((20, 71))}),
            ),
            r"states \[20, 71\] .*recorded in another task",
        ),
    ],
)
def test_what_cannot_be_converted_is_said(short, tmp_path, change, message):
    path = tmp_path / "low_dim.hdf5"
    path.write_bytes(short.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DatasetError, match=message):
        convert_actions("lift", path, tmp_path / "low_dim_abs.hdf5", n_workers=0, evaluate=False)
    assert not (tmp_path / "low_dim_abs.hdf5").exists()


# The command


def command(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "convert_actions.py"), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@slow
def test_the_command_converts_in_parallel_and_trains_on_the_result(short, tmp_path):
    path = tmp_path / "low_dim.hdf5"
    path.write_bytes(short.read_bytes())
    result = command("task=lift_lowdim_ph", f"output={tmp_path}/low_dim_abs.hdf5", "n_workers=2")
    assert result.returncode == 0, result.stderr
    for index in range(3):
        assert f"demo_{index}: a step ends at most" in result.stdout
    assert "3 demonstrations" in result.stdout and "of 3 replays succeed" in result.stdout
    train, _ = load_robomimic_lowdim(tmp_path / "low_dim_abs.hdf5", "lift", Windows(10, val_ratio=0))
    assert train.fields["action"].shape == (60, 10)


@slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=can_ph", "output={tmp}/image_abs.hdf5"], "no data file at {tmp}/image.hdf5"),
        (["task=can_ph", "output={tmp}/image.hdf5"], "would be written over its own input"),
        (["task=pusht_lowdim", "output=x"], "is none of robomimic"),
    ],
)
def test_bad_input_is_one_error(tmp_path, arguments, message):
    result = command(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert message.format(tmp=tmp_path) in result.stderr
    assert not list(tmp_path.iterdir())
