"""Kitchen demonstrations as training windows, and the published files they come from."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from kitchen_data import mjl_bytes, write_arrays, write_log

from diffusion_policy.dataset.kitchen_dataset import load_kitchen_logs, load_kitchen_npy, load_kitchen_scripted
from diffusion_policy.dataset.kitchen_files import DAMAGED_AS_PUBLISHED, initial_states, read_arrays, read_logs
from diffusion_policy.dataset.mjl import read_mjl
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.dataset.stored_demos import write_replay_buffer
from diffusion_policy.env.kitchen.definition import NOISE_AMPLITUDE

EVERY = 40


# ---- logs ----
@pytest.mark.parametrize("every", [1, 7, 40])
def test_a_log_is_read_as_documented(tmp_path, every):
    recorded = write_log(tmp_path / "a.mjl", 95, name=b"any name")
    log = read_mjl(tmp_path / "a.mjl", every)
    for name in ("time", "qpos", "qvel", "ctrl"):
        assert getattr(log, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(log, name), recorded[name][::every])


def test_logs_become_windows_of_joint_positions_and_commands(tmp_path):
    recorded = [
        write_log(tmp_path / folder / "x.mjl", rows, seed=rows)
        for folder, rows in (("a", 9 * EVERY), ("a/deeper", 7 * EVERY - 1), ("b", 8 * EVERY))
    ]
    order = [recorded[1], recorded[0], recorded[2]]  # by path: a/deeper/x.mjl, a/x.mjl, b/x.mjl
    train, none = load_kitchen_logs(tmp_path, Windows(5, pad_before=2, val_ratio=0.0), noise_ratio=0.0)
    assert none is None and len(train) == sum(length - 5 + 1 + 2 for length in (7, 9, 8))
    qpos, ctrl = (np.concatenate([log[name][::EVERY] for log in order]) for name in ("qpos", "ctrl"))
    np.testing.assert_array_equal(train.fields["obs"], np.concatenate([qpos, np.zeros((24, 30))], axis=1))
    np.testing.assert_array_equal(train.fields["action"], ctrl)
    assert train[0]["obs"].shape == (5, 60) and train[0]["action"].shape == (5, 9)
    np.testing.assert_array_equal(train[0]["action"], ctrl[[0, 0, 0, 1, 2]])


def test_joints_between_robot_and_objects_are_left_out(tmp_path):
    recorded = write_log(tmp_path / "a.mjl", 5 * EVERY, nq=33, nv=32)
    train, _ = load_kitchen_logs(tmp_path, Windows(2, val_ratio=0.0), noise_ratio=0.0)
    np.testing.assert_array_equal(
        train.fields["obs"][:, :30], recorded["qpos"][::EVERY][:, [*range(9), *range(12, 33)]]
    )


def test_a_repeated_log_counts_once(tmp_path):
    for path in ("a/x.mjl", "a/x (1).mjl", "b/c/x.mjl"):
        write_log(tmp_path / path, 5 * EVERY)
    write_log(tmp_path / "b/y.mjl", 5 * EVERY, seed=1)
    assert len(read_logs(tmp_path)) == 2


@pytest.mark.parametrize("cut", [1, 4, 4 * 100])
def test_a_log_cut_short_is_refused(tmp_path, cut):
    content, _ = mjl_bytes(50)
    (tmp_path / "good.mjl").write_bytes(content)
    (tmp_path / "short.mjl").write_bytes(content[:-cut])
    with pytest.raises(DatasetError, match=r"short\.mjl is cut short.*get the data set again"):
        load_kitchen_logs(tmp_path, Windows(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes, less than the 28"),
        (struct.pack("<7i", 30, 29, 9, 0, 0, 0, 7)[:20], "has 20 bytes, less than the 28"),
        (struct.pack("<7i", 30, 29, 9, 0, 0, 0, 7), "is cut short, 0 bytes"),
        (struct.pack("<7i", 30, 29, 9, 0, 0, 0, 7) + b"kitchen", "is cut short, 0 bytes"),
        (b"<html>nothing to download here</html>", "is not a MuJoCo log"),
        (
            struct.pack("<7i", 30, 29, -9, 0, 0, 0, 0) + bytes(400),
            "is not a MuJoCo log, its header would say nq 30.*nu -9",
        ),
        (bytes(600), "is not a MuJoCo log"),
        (struct.pack("<7i", 1, 1, 1, 0, 0, 0, 0) + np.array([0, np.nan, 0, 0], "<f4").tobytes(), "not finite"),
    ],
)
def test_what_is_not_a_log_is_refused(tmp_path, content, message):
    (tmp_path / "x.mjl").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"x\.mjl {message}|x\.mjl holds numbers that are {message}"):
        load_kitchen_logs(tmp_path, Windows(1))


@pytest.mark.parametrize("sizes", [{"nq": 29}, {"nu": 8}, {"nu": 10}])
def test_logs_of_another_robot_are_refused(tmp_path, sizes):
    write_log(tmp_path / "other.mjl", 50, **sizes)
    with pytest.raises(DatasetError, match=r"other\.mjl logs .* not a log of Kitchen, move it out"):
        load_kitchen_logs(tmp_path, Windows(1))


@pytest.mark.parametrize("folder", ["absent", "."])
def test_a_folder_without_logs_says_how_to_get_them(tmp_path, folder):
    with pytest.raises(DatasetError, match="no readable .* bac data download task=kitchen_lowdim_abs"):
        load_kitchen_logs(tmp_path / folder, Windows(1))


def test_the_log_that_was_published_damaged_is_left_out_where_it_is_damaged(tmp_path):
    content, _ = mjl_bytes(50, seed=1)
    for folder in ("a", "b"):
        write_log(tmp_path / folder / "x.mjl", 50)
        (tmp_path / folder / f"{DAMAGED_AS_PUBLISHED}.mjl").write_bytes(content[:-7])
    assert len(read_logs(tmp_path)) == 1
    (tmp_path / "b" / f"{DAMAGED_AS_PUBLISHED}.mjl").write_bytes(content)
    assert len(read_logs(tmp_path)) == 2


# ---- arrays ----
def test_arrays_become_windows_of_each_demonstration(tmp_path):
    lengths = (5, 8, 6)
    arrays = write_arrays(tmp_path, lengths)
    train, _ = load_kitchen_npy(tmp_path, Windows(4, pad_after=1, val_ratio=0.0))
    assert len(train) == sum(length - 4 + 1 + 1 for length in lengths)
    expected = {
        name: np.concatenate([arrays[name][:length, e] for e, length in enumerate(lengths)]).astype(np.float32)
        for name in ("observations_seq", "actions_seq")
    }
    np.testing.assert_array_equal(train.fields["obs"][:, :30], expected["observations_seq"][:, :30])
    assert (train.fields["obs"][:, 30:] == 0).all()
    np.testing.assert_array_equal(train.fields["action"], expected["actions_seq"])


def test_initial_states(tmp_path):
    arrays = write_arrays(tmp_path, (5, 8))
    qpos, qvel = initial_states(tmp_path)
    np.testing.assert_array_equal(qpos, arrays["all_init_qpos"])
    np.testing.assert_array_equal(qvel, arrays["all_init_qvel"])


FILES = {
    "observations_seq.npy": read_arrays,
    "actions_seq.npy": read_arrays,
    "existence_mask.npy": read_arrays,
    "all_init_qpos.npy": initial_states,
    "all_init_qvel.npy": initial_states,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "cut short", "foreign", "pickled", "other axes", "other shape"])
def test_a_missing_or_damaged_array_is_refused(tmp_path, name, damage):
    write_arrays(tmp_path, (5, 8, 6))
    path = tmp_path / name
    content, values = path.read_bytes(), np.load(path)
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(content[:-9])
    elif damage == "foreign":
        path.write_bytes(b"<html>moved</html>")
    elif damage == "pickled":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        np.save(path, values[None] if damage == "other axes" else values[:, :-1])
    with pytest.raises(DatasetError, match=rf"{name}.* bac data download task=kitchen_lowdim"):
        FILES[name](tmp_path)


def test_arrays_with_the_demonstration_first_are_refused(tmp_path):
    arrays = write_arrays(tmp_path, (5, 8, 6))
    for name in ("observations_seq", "actions_seq", "existence_mask"):
        np.save(tmp_path / f"{name}.npy", arrays[name].swapaxes(0, 1))
    with pytest.raises(DatasetError, match="existence_mask.npy has .* first axis must be the time"):
        load_kitchen_npy(tmp_path, Windows(2))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    arrays = write_arrays(tmp_path, (5, 8, 6))
    arrays["actions_seq"][3, 2, 0] = np.inf
    np.save(tmp_path / "actions_seq.npy", arrays["actions_seq"])
    with pytest.raises(DatasetError, match="demonstration 2 in .* not finite"):
        load_kitchen_npy(tmp_path, Windows(2))


# ---- scripted demonstrations ----
def scripted(length, seed, obs_dim=30):
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.uniform(-1.0, 1.0, (length, obs_dim)).astype(np.float32),
        "action": rng.uniform(-1.0, 1.0, (length, 9)).astype(np.float32),
    }


@pytest.fixture
def episodes():
    return [scripted(length, seed) for seed, length in enumerate((40, 30, 50, 35))]


@pytest.fixture
def zarr_path(tmp_path, episodes):
    write_replay_buffer(tmp_path / "demos.zarr", episodes, {})
    return tmp_path / "demos.zarr"


def test_scripted_demonstrations_become_windows(zarr_path, episodes):
    train, val = load_kitchen_scripted(zarr_path, Windows(16, pad_before=3, pad_after=7, val_ratio=0.25, seed=0))
    assert len(train) + len(val) == sum(length - 16 + 1 + 3 + 7 for length in (40, 30, 50, 35))
    assert train[0]["obs"].shape == (16, 60) and train[0]["action"].shape == (16, 9)
    few, _ = load_kitchen_scripted(zarr_path, Windows(16, val_ratio=0.25, max_train_episodes=1, seed=0))
    assert len(few) < len(load_kitchen_scripted(zarr_path, Windows(16, val_ratio=0.25, seed=0))[0])
    plain, _ = load_kitchen_scripted(zarr_path, Windows(16, val_ratio=0.0), noise_ratio=0.0)
    np.testing.assert_array_equal(plain.fields["obs"][:, :30], np.concatenate([episode["obs"] for episode in episodes]))
    np.testing.assert_array_equal(plain.fields["action"], np.concatenate([episode["action"] for episode in episodes]))


def test_noise_is_that_of_the_environment_and_of_the_seed(zarr_path):
    def obs(seed=42, **settings):
        return (
            load_kitchen_scripted(zarr_path, Windows(4, val_ratio=0.0, seed=seed), **settings)[0].fields["obs"].numpy()
        )

    noise = (obs(noise_ratio=0.2) - obs(noise_ratio=0.0))[:, :30] / (0.2 * NOISE_AMPLITUDE)
    assert (np.abs(noise) <= 1.01).all() and (noise.max(axis=0) > 0.9).all() and (noise.min(axis=0) < -0.9).all()
    assert np.abs(np.corrcoef(noise.T) - np.eye(30)).max() < 0.35  # of 155 rows
    assert (obs(noise_ratio=0.2)[:, 30:] == 0).all()
    np.testing.assert_array_equal(obs(seed=3), obs(seed=3))
    assert not np.array_equal(obs(seed=3), obs(seed=4))


def test_the_normalizer_does_not_blow_up_joints_that_only_shake(tmp_path):
    demo = scripted(60, 0)
    demo["obs"][:, 11] = 0.3
    demo["action"][:, 7] = np.linspace(0.0, 0.04, 60)
    write_replay_buffer(tmp_path / "demos.zarr", [demo], {})
    train, _ = load_kitchen_scripted(tmp_path / "demos.zarr", Windows(4, val_ratio=0.0))
    normalized = train.fit_normalizer().normalize(train.fields)
    assert np.ptp(normalized["obs"][:, 11].numpy()) < 0.01 and normalized["obs"].abs().max() <= 1.0 + 1e-5
    assert (normalized["obs"][:, 30:] == 0).all()
    assert np.ptp(normalized["action"][:, 7].numpy()) == pytest.approx(2.0)


def test_missing_or_other_demonstrations_say_how_to_make_them(tmp_path):
    with pytest.raises(DatasetError, match="bac demos task=kitchen_scripted_demos"):
        load_kitchen_scripted(tmp_path / "absent.zarr", Windows(5))
    write_replay_buffer(tmp_path / "other.zarr", [scripted(8, 0, obs_dim=60)], {})
    with pytest.raises(DatasetError, match=r"\[8, 60\].*not scripted Kitchen.*bac demos task=kitchen_scripted_demos"):
        load_kitchen_scripted(tmp_path / "other.zarr", Windows(5))
