"""Recordings of any kind give a policy the same observations, or an error that lists both sides."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.recordings.contract import fingerprint, starts
from diffusion_policy.dataset.recordings.opening import open_recording
from diffusion_policy.dataset.recordings.windows import RecordedObservations, match, suggested
from diffusion_policy.dataset.zarr_reader import ZarrFile
from tests.recordings import LENGTHS, POSE, rows, write_hdf5, write_lerobot_v2, write_zarr

SIZE = (48, 64)
WANTED = {"camera0": (3, *SIZE), "pose": (POSE,)}
NAMES = {"camera0": "image"}


@pytest.fixture(scope="module")
def values():
    return rows(SIZE)


@pytest.fixture(scope="module")
def files(values, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return {"hdf5": write_hdf5(folder / "data.hdf5", values), "zarr": write_zarr(folder / "data.zarr", values)}


def observed(path, n_obs_steps=2, wanted=WANTED, names=NAMES) -> RecordedObservations:
    cameras = [name for name, shape in wanted.items() if len(shape) == 3]
    return RecordedObservations(open_recording(path), wanted, cameras, n_obs_steps, names)


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
@pytest.mark.parametrize("n_obs_steps", [1, 2, 6])
def test_observations_are_the_rows_before_with_the_first_repeated(files, values, kind, n_obs_steps):
    found = observed(files[kind], n_obs_steps)
    first = starts(found.recording)
    ends = found.ends(range(1, 4))
    assert ends.tolist() == list(range(first[1], first[4]))
    batch = found.read(ends)
    for window, end in enumerate(ends):
        begin = first[np.searchsorted(first, end, side="right") - 1]
        for step in range(n_obs_steps):
            row = max(end - n_obs_steps + 1 + step, begin)
            assert np.array_equal(batch["pose"][window, step], values["pose"][row])
            assert np.array_equal(batch["camera0"][window, step], np.moveaxis(values["image"][row], -1, 0))
    assert batch["camera0"].dtype == np.uint8 and batch["pose"].dtype == np.float32


def test_one_recording_is_recognised_in_every_form_and_another_is_not(files, values, tmp_path):
    digests = {fingerprint(open_recording(path)) for path in files.values()}
    assert len(digests) == 1
    other = write_hdf5(tmp_path / "other.hdf5", {**values, "pose": values["pose"] + 1})
    assert fingerprint(open_recording(other)) not in digests


def test_a_lerobot_data_set_of_version_2_is_read(values, tmp_path):
    folder = write_lerobot_v2(tmp_path / "set", values)
    for text in (folder, f"lerobot:{folder}"):
        found = observed(text, names=None)
        assert list(found.recording.lengths) == list(LENGTHS)
    batch, ends = found.read(found.ends(range(len(LENGTHS)))), found.ends(range(len(LENGTHS)))
    assert np.array_equal(batch["pose"][:, -1], values["pose"][ends])
    off = np.abs(batch["camera0"][:, -1].astype(float) - np.moveaxis(values["image"][ends], -1, -3))
    assert off.mean() < 12  # a video is not exact
    (folder / "meta/episodes.jsonl").write_text('{"episode_index": 0, "length": 3}\n')
    with pytest.raises(DatasetError, match="counts 5 episodes"):
        open_recording(folder)


def test_windows_of_an_npz_file_are_taken_as_they_are(values, tmp_path):
    windows = rows(SIZE)["pose"][:24].reshape(6, 4, POSE)
    np.savez(tmp_path / "windows.npz", pose=windows)
    found = observed(tmp_path / "windows.npz", 2, {"pose": (POSE,)}, None)
    assert np.array_equal(found.read(found.ends(range(1, 6)))["pose"], windows[1:, 2:])
    with pytest.raises(DatasetError, match="windows of 4 observation steps, and the policy looks at 5"):
        observed(tmp_path / "windows.npz", 5, {"pose": (POSE,)}, None)


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_rows_of_a_zarr_array_are_those_of_the_whole_array(values, tmp_path, chunk):
    file = ZarrFile(write_zarr(tmp_path / "data.zarr", values, chunk))
    whole, rng = file.read("data/image"), np.random.default_rng(chunk)
    for count in (1, 3, len(whole)):
        chosen = np.sort(rng.choice(len(whole), count, replace=False))
        assert np.array_equal(file.read_rows("data/image", chosen), whole[chosen])
    with pytest.raises(DatasetError, match="not all of the wanted rows"):
        file.read_rows("data/image", np.array([len(whole)]))


def test_a_part_of_a_vector_can_be_an_input(files, values):
    found = observed(files["hdf5"], 1, {"gripper": (2,)}, {"gripper": "pose:5:7"})
    assert np.array_equal(found.read(np.array([0, 3]))["gripper"][:, 0], values["pose"][[0, 3], 5:7])


@pytest.mark.parametrize("dtype, factor", [(np.float32, 1), (np.float32, 1 / 255), (np.int64, 1)])
def test_pixels_of_other_types_become_what_training_made_of_them(values, tmp_path, dtype, factor):
    stored = {**values, "image": (values["image"] * factor).astype(dtype)}
    found = observed(write_hdf5(tmp_path / "data.hdf5", stored), 1)
    image = found.read(np.array([0, 7]))["camera0"]
    unit = image / 255 if image.dtype == np.uint8 else image
    assert np.allclose(unit[:, 0], np.moveaxis(values["image"][[0, 7]], -1, -3) / 255, atol=1e-6)
    assert bool(found.notes) == (factor == 1)


def test_other_pixels_and_numbers_that_are_not_finite_are_refused(values, tmp_path):
    stored = {**values, "image": values["image"] / 127.5 - 1}
    with pytest.raises(DatasetError, match="images from -1 to"):
        observed(write_hdf5(tmp_path / "a.hdf5", stored), 1).read(np.array([0, 1]))
    pose = values["pose"].copy()
    pose[4, 2] = np.nan
    with pytest.raises(DatasetError, match="obs/pose is not finite in row 4 of all"):
        observed(write_hdf5(tmp_path / "b.hdf5", {**values, "pose": pose}), 1).read(np.array([3, 4, 5]))


def test_what_does_not_fit_is_told_with_both_sides_and_what_to_type(files):
    with pytest.raises(DatasetError) as error:
        observed(files["zarr"], wanted={**WANTED, "force": (3,)}, names=None)
    text = str(error.value)
    for part in ("camera0 [3, 48, 64]", "there is no camera0", "pose [7]  <- pose", "image uint8 [48, 64, 3]"):
        assert part in text
    assert "observations_map='{camera0: image, force: <field>}'" in text
    with pytest.raises(DatasetError, match="observations_map names camera, and the policy looks at camera0, pose"):
        observed(files["zarr"], names={"camera": "image"})


def test_what_is_suggested_matches(files):
    recording = open_recording(files["zarr"])
    matches = match(recording, WANTED, ["camera0"])
    assert matches["camera0"].source is None and suggested(recording, matches) == "{camera0: image}"
    assert all(item.source for item in match(recording, WANTED, ["camera0"], NAMES).values())


def test_an_image_of_another_size_is_refused_and_never_scaled(files):
    with pytest.raises(DatasetError, match=r"image is \[48, 64, 3\]: record images of this size, or resize them"):
        observed(files["hdf5"], wanted={"camera0": (3, 24, 32)})


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("nothing.hdf5", None, "there is no recording at .*: give an .hdf5 file, a .zarr folder, lerobot:"),
        ("notes.txt", b"hello", "no recording that is read here"),
        ("cut.hdf5", b"\x89HDF\r\n\x1a\n", "cannot be read|cut short"),
        ("broken.npz", b"no archive", "cannot read"),
    ],
)
def test_what_is_no_recording_is_told(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        open_recording(tmp_path / name)
