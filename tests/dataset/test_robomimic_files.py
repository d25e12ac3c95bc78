"""robomimic's data files: what is refused, what is only warned of, and what the errors advise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from robomimic_data import write_demonstrations

from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_actions import abs_path, are_absolute, delta_path
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_image, load_robomimic_lowdim
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.env.robomimic.definition import env_metadata, task_named
from diffusion_policy.env_runner.robomimic_starts import initial_state

h5py = pytest.importorskip("h5py")


def load(path, task="can", **options):
    return load_robomimic_lowdim(path, task, Windows(6), name="can_lowdim_ph", **options)


def recorded(change):
    """env_args of this project's simulator with `change` (a dict, or what is called with them) made."""
    args = {**env_metadata(task_named("can"), abs_action=False), "env_version": "1.4.1"}
    if callable(change):
        change(args)
        return args
    return {**args, **change}


def set_in(*keys, value):
    def change(args):
        for key in keys[:-1]:
            args = args[key]
        args[keys[-1]] = value

    return change


@pytest.fixture
def lowdim(tmp_path):
    write_demonstrations(tmp_path / "low_dim_abs.hdf5")
    return tmp_path / "low_dim_abs.hdf5"


# Files that are missing or damaged


def test_a_missing_file_names_the_commands_that_get_it(tmp_path):
    commands = r"bac data download task=can_lowdim_ph.*low_dim.hdf5.*bac demos"
    with pytest.raises(DatasetError, match=rf"no data file at .*{commands}"):
        load(tmp_path / "low_dim_abs.hdf5")
    assert not list(tmp_path.iterdir())


def test_a_missing_file_beside_relative_actions_names_the_conversion(tmp_path):
    write_demonstrations(tmp_path / "low_dim.hdf5", absolute=False)
    path = tmp_path / "low_dim_abs.hdf5"
    command = f"bac data convert-actions task=can_lowdim_ph output={path}"
    with pytest.raises(DatasetError, match=f"convert them with: {command}"):
        load(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short(lowdim, kept):
    content = lowdim.read_bytes()
    lowdim.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DatasetError, match="is cut short .*get it again.*bac data download"):
        load(lowdim)


def test_damaged_bytes_never_show_as_a_bug(lowdim):
    content, rng = lowdim.read_bytes(), np.random.default_rng(0)
    refused = 0
    for start in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[start : start + 30] = rng.bytes(30)
        lowdim.write_bytes(damaged[: len(content)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load(lowdim)
            except DatasetError:
                refused += 1
    assert refused > 10  # numbers of a demonstration may be damaged without notice: the format has no checksums


def test_a_file_of_another_format(tmp_path):
    (tmp_path / "low_dim_abs.hdf5").write_text("<html>moved</html>")
    with pytest.raises(DatasetError, match="cannot be read .*get it again"):
        load(tmp_path / "low_dim_abs.hdf5")


def test_another_hdf5_file(tmp_path):
    with h5py.File(tmp_path / "low_dim_abs.hdf5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(DatasetError, match="no data/demo_0.*no data file of robomimic"):
        load(tmp_path / "low_dim_abs.hdf5")


def damaged(path, change):
    with h5py.File(path, "r+") as file:
        change(file["data/demo_3"])


def replaced(demo, name, values):
    del demo[name]
    if values is not None:
        demo[name] = values


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("actions", None, "demo_3 has no actions"),
        ("obs/object", None, "demo_3 has no obs/object, but robot0_eef_pos"),
        ("obs/object", np.zeros((8, 10)), r"demo_3/obs/object is \[8, 10\] instead of \['T', 14\]: .*another task"),
        ("obs/object", np.zeros((7, 14)), "demo_3/obs/object has 7 rows and demo_3/actions 8"),
        ("obs/object", np.full((8, 14), np.nan), "demo_3/obs/object holds numbers that are not finite"),
        ("actions", np.zeros((8, 14)), r"demo_3/actions is \[8, 14\] instead of \['T', 7\]"),
    ],
)
def test_a_damaged_demonstration_is_named(lowdim, name, values, message):
    damaged(lowdim, lambda demo: replaced(demo, name, values))
    with pytest.raises(DatasetError, match=message):
        load(lowdim)


def test_images_of_another_size_or_camera(tmp_path):
    path = tmp_path / "image_abs.hdf5"
    write_demonstrations(path, image=True, lengths=(8, 8, 8, 8))
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            replaced(demo, "obs/agentview_image", np.zeros((8, 96, 96, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"agentview_image is \[8, 96, 96, 3\] instead of .*84.* another image size"):
        load_robomimic_image(path, "can", Windows(6))
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            del demo["obs/agentview_image"]
    with pytest.raises(DatasetError, match="has no obs/agentview_image, but robot0_eef_pos.*robot0_eye_in_hand_image"):
        load_robomimic_image(path, "can", Windows(6))
    assert not (tmp_path / "image_abs.hdf5.cache").exists()


def test_a_file_without_images(lowdim):
    with pytest.raises(DatasetError, match="no obs/agentview_image"):
        load_robomimic_image(lowdim, "can", Windows(6))


# Another environment


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_name": "Lift"}, "holds demonstrations of Lift, not of PickPlaceCan"),
        ({"env_version": "1.5.1"}, r"robosuite 1.5.1.*get the file for robosuite 1.4"),
        (set_in("env_kwargs", "robots", value=["Sawyer"]), r"robots \['Sawyer'\]"),
        (set_in("env_kwargs", "control_freq", value=10), "control_freq 10, and policies are evaluated with 20"),
        (set_in("env_kwargs", "controller_configs", "type", value="JOINT_POSITION"), "type JOINT_POSITION"),
        (set_in("env_kwargs", "controller_configs", "output_max", value=[0.1] * 6), "output_max"),
        (set_in("env_kwargs", "controller_configs", value=None), "does not say how its robots were controlled"),
        ({"env_kwargs": None}, "does not say in which environment"),
    ],
)
def test_demonstrations_of_another_environment_are_refused(tmp_path, change, message):
    write_demonstrations(tmp_path / "low_dim_abs.hdf5", env_args=recorded(change))
    with pytest.raises(DatasetError, match=message):
        load(tmp_path / "low_dim_abs.hdf5")


@pytest.mark.parametrize("attribute", [None, "not json", "[]"])
def test_a_file_that_says_nothing_of_its_environment(lowdim, attribute):
    with h5py.File(lowdim, "r+") as file:
        del file["data"].attrs["env_args"]
        if attribute is not None:
            file["data"].attrs["env_args"] = attribute
    with pytest.raises(DatasetError, match="does not say in which environment"):
        load(lowdim)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_version": "1.2.0"}, "recorded with robosuite 1.2.0; policies are evaluated in 1.4"),
        (lambda args: args.pop("env_version"), "a robosuite that it does not name"),
        (set_in("env_kwargs", "controller_configs", "kp", value=100), "another controller .*kp 100 instead of 150"),
    ],
)
def test_differences_that_the_original_accepts_are_warned_of(tmp_path, change, message):
    write_demonstrations(tmp_path / "low_dim_abs.hdf5", env_args=recorded(change))
    with pytest.warns(UserWarning, match=message):
        load(tmp_path / "low_dim_abs.hdf5")


@pytest.mark.parametrize(
    "change",
    [
        {},
        set_in("env_kwargs", "robots", value="Panda"),
        set_in("env_kwargs", "camera_heights", value=None),
        set_in("env_kwargs", "controller_configs", "control_delta", value=False),
        lambda args: args["env_kwargs"].update(controller_configs=[args["env_kwargs"]["controller_configs"]]),
    ],
)
def test_other_ways_to_say_the_same_are_not_warned_of(tmp_path, change):
    write_demonstrations(tmp_path / "low_dim_abs.hdf5", env_args=recorded(change))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "low_dim_abs.hdf5")


# Relative and absolute actions


@pytest.mark.parametrize("task", ["can", "transport"])
@pytest.mark.parametrize("absolute", [True, False])
def test_actions_are_recognised_by_their_numbers(tmp_path, task, absolute):
    demos = write_demonstrations(tmp_path / "low_dim.hdf5", task, absolute=absolute)
    arms = range(task_named(task).n_arms)
    for demo in demos:
        positions = np.concatenate([demo[f"obs/robot{arm}_eef_pos"] for arm in arms], axis=-1)
        assert are_absolute(demo["actions"], positions) == absolute


def test_relative_actions_are_not_taken_for_absolute_ones(tmp_path):
    write_demonstrations(tmp_path / "low_dim.hdf5", absolute=False)
    output = tmp_path / "low_dim_abs.hdf5"
    with pytest.raises(DatasetError, match=f"holds relative actions .*bac data convert-actions.*output={output}"):
        load(tmp_path / "low_dim.hdf5")
    (tmp_path / "low_dim.hdf5").rename(output)
    with pytest.raises(DatasetError, match="which its name denies: rename it to .*low_dim.hdf5 and convert"):
        load(tmp_path / "low_dim_abs.hdf5")


def test_absolute_actions_are_not_taken_for_relative_ones(lowdim):
    with pytest.raises(DatasetError, match="holds absolute actions .*task.abs_action=true"):
        load(lowdim, abs_action=False)


def test_names_of_files(tmp_path):
    for name in ("image.hdf5", "image_abs.hdf5"):
        assert delta_path(tmp_path / name) == tmp_path / "image.hdf5"
        assert abs_path(tmp_path / name) == tmp_path / "image_abs.hdf5"


def test_episodes_start_where_its_demonstrations_did(tmp_path):
    demos = write_demonstrations(tmp_path / "low_dim_abs.hdf5")
    for index, demo in enumerate(demos):
        np.testing.assert_array_equal(initial_state(tmp_path / "low_dim_abs.hdf5", index), demo["states"][0])
