"""Windows over demonstrations with images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zarr

from diffusion_policy.dataset.pusht_image_dataset import load_pusht_image
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset, Windows
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer

ENDS = np.array([7, 12, 20])
HORIZON, BEFORE, AFTER = 6, 1, 2


def random_arrays(n: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "img": rng.integers(0, 256, (n, 96, 96, 3)).astype(np.float32),
        "state": rng.uniform(0, 512, (n, 5)).astype(np.float32),
        "action": rng.uniform(0, 512, (n, 2)).astype(np.float32),
    }


def write(path, arrays):
    for name, values in [*((f"data/{name}", values) for name, values in arrays.items()), ("meta/episode_ends", ENDS)]:
        zarr.open_group(str(path), mode="a")
        array = zarr.open_array(
            str(path / name), mode="w", shape=values.shape, dtype=values.dtype, chunks=(8, *values.shape[1:])
        )
        array[:] = values
    return path


@pytest.fixture(scope="module")
def arrays():
    return random_arrays()


@pytest.fixture(scope="module")
def demonstrations(arrays, tmp_path_factory):
    """Three short episodes of noise in the form of the Push-T demonstrations."""
    return write(tmp_path_factory.mktemp("pusht") / "replay.zarr", arrays)


def load(path, val_ratio=0.0, max_train_episodes=None, **options):
    return load_pusht_image(path, Windows(HORIZON, BEFORE, AFTER, val_ratio, max_train_episodes), **options)


# Windows


def test_windows_hold_the_recorded_rows(demonstrations, arrays):
    train, val = load(demonstrations)
    assert val is None and len(train) == sum(
        length - HORIZON + BEFORE + AFTER + 1 for length in np.diff(ENDS, prepend=0)
    )
    for index, rows in enumerate(train.rows.numpy()):
        item = train[index]
        assert {name: (tuple(value.shape), value.dtype) for name, value in item.items()} == {
            "image": ((HORIZON, 3, 96, 96), torch.uint8),
            "agent_pos": ((HORIZON, 2), torch.float32),
            "action": ((HORIZON, 2), torch.float32),
        }
        np.testing.assert_array_equal(item["image"], np.moveaxis(arrays["img"][rows], -1, 1))
        np.testing.assert_array_equal(item["agent_pos"], arrays["state"][rows, :2])
        np.testing.assert_array_equal(item["action"], arrays["action"][rows])
    first = train[0]["image"]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])  # the repeated first row


def test_only_the_observed_steps_are_fetched(demonstrations):
    complete, observed = load(demonstrations)[0], load(demonstrations, n_obs_steps=2)[0]
    for index in range(len(complete)):
        expected, item = complete[index], observed[index]
        assert torch.equal(item["action"], expected["action"])
        for name in ("image", "agent_pos"):
            assert torch.equal(item[name], expected[name][:2])


@pytest.mark.parametrize("n_obs_steps", [None, 2])
def test_a_batch_stacks_its_items(demonstrations, n_obs_steps):
    train, _ = load(demonstrations, n_obs_steps=n_obs_steps)
    indices = torch.tensor([5, 0, 5, len(train) - 1])
    batch = train[indices]
    for name, values in batch.items():
        assert values.is_contiguous() and torch.equal(values, torch.stack([train[int(i)][name] for i in indices]))


def test_validation_episodes_are_held_out_and_share_the_images(demonstrations):
    train, val = load(demonstrations, val_ratio=0.3)
    assert not set(train.rows.flatten().tolist()) & set(val.rows.flatten().tolist())
    assert train.images["image"] is val.images["image"] and train.images["image"].dtype == np.uint8
    assert len(load(demonstrations, max_train_episodes=1)[0]) < len(train) + len(val)


# Normalizer


def test_images_have_a_fixed_scale_and_vectors_their_limits(demonstrations, arrays):
    train, _ = load(demonstrations)
    normalizer = train.fit_normalizer()
    assert set(normalizer.params_dict) == {"image", "agent_pos", "action"}
    image = normalizer["image"]
    assert image.scale.tolist() == [2.0] and image.offset.tolist() == [-1.0]
    assert {name: value.tolist() for name, value in image.input_stats.items()} == {
        "min": [0.0],
        "max": [1.0],
        "mean": [0.5],
        "std": [pytest.approx(12**-0.5)],
    }
    batch = {
        name: values / 255 if name == "image" else values for name, values in train[torch.arange(len(train))].items()
    }
    normalized = normalizer.normalize(batch)
    for name, values in normalized.items():
        assert values.min() == pytest.approx(-1, abs=1e-4) and values.max() == pytest.approx(1, abs=1e-4), name
        np.testing.assert_allclose(normalizer[name].unnormalize(values), batch[name], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(normalizer["agent_pos"].input_stats["max"], arrays["state"][:, :2].max(axis=0))


def test_the_normalizer_goes_into_a_checkpoint_and_back(demonstrations):
    train, _ = load(demonstrations)
    state = train.fit_normalizer().state_dict()
    assert state["params_dict.image.input_stats.std"].shape == (1,)
    fresh = LinearNormalizer()
    fresh.load_state_dict(state)
    item = train[3]
    for name, values in train.fit_normalizer().normalize(item).items():
        assert torch.equal(fresh[name].normalize(item[name]), values)


# Any cameras and vectors


def test_several_cameras_and_a_given_normalizer(tmp_path):
    rng = np.random.default_rng(1)
    on_disk = np.memmap(tmp_path / "wrist", dtype=np.uint8, mode="w+", shape=(9, 4, 5, 3))
    on_disk[:] = rng.integers(0, 256, on_disk.shape)
    fields = {
        "front": rng.integers(0, 256, (9, 6, 7, 3), dtype=np.uint8),
        "wrist": on_disk,
        "quat": rng.normal(size=(9, 4)),
        "pos": rng.normal(size=(9, 3)),
        "action": rng.normal(size=(9, 10)),
    }
    rows = np.array([[0, 1, 2], [4, 5, 6]])
    dataset = ImageSequenceDataset(fields, rows, n_obs_steps=2, normalizers={"quat": FieldNormalizer.identity(4)})
    batch = dataset[torch.tensor([1, 0])]
    assert {name: tuple(value.shape[1:]) for name, value in batch.items()} == {
        "front": (2, 3, 6, 7),
        "wrist": (2, 3, 4, 5),
        "quat": (2, 4),
        "pos": (2, 3),
        "action": (3, 10),
    }
    np.testing.assert_array_equal(batch["wrist"][0, 1], np.moveaxis(on_disk[5], -1, 0))
    normalizer = dataset.fit_normalizer()
    assert set(normalizer.params_dict) == set(fields)
    assert torch.equal(normalizer["quat"].normalize(batch["quat"]), batch["quat"])
    assert normalizer["pos"].scale.shape == (3,) and normalizer["wrist"].scale.tolist() == [2.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.zeros((0, 3), dtype=int)}, "no training window fits"),
        ({"n_obs_steps": 4}, "use 1 to 3"),
        ({"n_obs_steps": 0}, "use 1 to 3"),
        (
            {"fields": {"camera": np.zeros((5, 4, 4, 3)), "action": np.zeros((5, 2))}},
            "'camera' is float64 .* nor an image uint8",
        ),
        (
            {"normalizers": {"camrea": FieldNormalizer.image()}},
            "normalizers for camrea, but the fields are action, camera",
        ),
    ],
)
def test_what_cannot_work_is_refused(change, message):
    arguments = {
        "fields": {"camera": np.zeros((5, 4, 4, 3), np.uint8), "action": np.zeros((5, 2))},
        "rows": np.array([[0, 1, 2]]),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        ImageSequenceDataset(**arguments)


# Damaged data


@pytest.mark.parametrize("value", [-1.0, 256.0, 0.5, np.nan])
def test_values_that_are_no_pixels_are_refused(tmp_path, arrays, value):
    images = arrays["img"].copy()
    images[17, 3, 4, 1] = value
    path = write(tmp_path / "replay.zarr", {**arrays, "img": images})
    with pytest.raises(DatasetError, match=r"img holds other values than .* in rows 16 to 19.*bac data download"):
        load(path)


@pytest.mark.parametrize(
    ("name", "values"),
    [("img", np.zeros((20, 84, 84, 3))), ("state", np.zeros((20, 3))), ("action", np.zeros((20, 7)))],
)
def test_another_data_set_is_refused(tmp_path, arrays, name, values):
    path = write(tmp_path / "replay.zarr", {**arrays, name: values})
    with pytest.raises(DatasetError, match=rf"holds '{name}' .* it is not Push-T.*bac data download"):
        load(path)


def test_missing_or_truncated_data_is_a_clear_error(tmp_path, arrays):
    with pytest.raises(DatasetError, match="no data set at .*task=pusht_image"):
        load(tmp_path / "none")
    path = write(tmp_path / "replay.zarr", {**arrays, "img": arrays["img"][:15]})
    with pytest.raises(DatasetError, match="'img' has 15 rows but the episodes end at row 20"):
        load(path)
