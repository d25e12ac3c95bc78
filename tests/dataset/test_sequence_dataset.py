"""Windows over episodes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.dataset.pusht_dataset import load_pusht_lowdim
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer, split_episodes
from diffusion_policy.dataset.sequence_dataset import SequenceDataset, Windows, window_rows


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 6), st.integers(0, 5), st.integers(0, 5))
def test_windows_stay_in_their_episode_and_cover_every_row(lengths, horizon, before, after):
    ends = np.cumsum(lengths)
    buffer = ReplayBuffer({"x": np.arange(ends[-1])}, ends)
    rows = window_rows(buffer, np.ones(len(lengths), bool), horizon, before, after)
    episode = np.searchsorted(ends, rows, side="right")
    assert (episode == episode[:, :1]).all()
    assert (np.diff(rows, axis=1) >= 0).all() and (np.diff(rows, axis=1) <= 1).all()
    for index, length in enumerate(lengths):
        count = max(0, length - horizon + min(before, horizon - 1) + min(after, horizon - 1) + 1)
        assert (episode[:, 0] == index).sum() == count if rows.size else count == 0


def test_split_is_disjoint_repeatable_and_limited():
    train, val = split_episodes(206, 0.02, None, 42)
    assert val.sum() == 4 and not (train & val).any() and (train | val).all()
    limited, same_val = split_episodes(206, 0.02, 90, 42)
    assert limited.sum() == 90 and np.array_equal(val, same_val) and not (limited & val).any()


def test_windows_are_split_by_episode_and_validation_may_be_missing():
    buffer = ReplayBuffer({"x": np.arange(40)}, np.array([20, 22, 40]))

    def split(*choice, **options):
        return Windows(5, 1, 1, *choice).split(set_of_rows, buffer, **options)

    train, val = split(0.4, None, 0)
    assert not train & val and train | val <= set(range(40)) and train and val
    assert split(0.0, None, 0) == (set(range(20)) | set(range(22, 40)), None)  # the episode of 2 rows has no window
    seeds = [seed for seed in range(20) if split_episodes(3, 0.4, None, seed)[1][1]]
    assert seeds and all(split(0.4, None, seed)[1] is None for seed in seeds)  # and may be the one held out
    assert len(split(0.0, 1, 0)[0]) < len(split(0.0, None, 0)[0])
    train, val = split(0.4, None, 0, make_train=Rows)
    assert isinstance(train, Rows) and not isinstance(val, Rows)


class RowSet(set):
    """As little of a data set as it takes: the numbers of its rows."""


class Rows(RowSet):
    def __init__(self, rows):
        super().__init__(rows.flatten().tolist())


def set_of_rows(rows):
    return RowSet(rows.flatten().tolist())


def test_windows_know_their_episode():
    ends = np.array([7, 12, 20])
    buffer = ReplayBuffer({"x": np.arange(20)}, ends)
    train, val = Windows(4, 1, 2, 0.34, None, 0).split(partial(SequenceDataset, {"obs": torch.zeros(20, 1)}), buffer)
    assert sorted({*train.episodes.tolist(), *val.episodes.tolist()}) == [0, 1, 2]
    for part in (train, val):
        assert len(part.episodes) == len(part)
        for number, rows in zip(part.episodes, part.rows):
            assert ([0, 7, 12][number] <= rows).all() and (rows < ends[number]).all()


def test_items_and_batches():
    dataset = SequenceDataset({"obs": torch.arange(6.0)[:, None]}, np.array([[0, 1], [4, 5]]))
    assert dataset[1]["obs"].flatten().tolist() == [4, 5]
    assert dataset[torch.tensor([0, 1])]["obs"].shape == (2, 2, 1)
    with pytest.raises(ValueError, match="no training window"):
        SequenceDataset({"obs": torch.zeros(3, 1)}, np.zeros((0, 4)))


def test_truncated_or_missing_data_is_a_clear_error(tmp_path):
    with pytest.raises(DatasetError, match="truncated"):
        ReplayBuffer({"x": np.zeros(3)}, np.array([5]))
    with pytest.raises(DatasetError, match="no data set at .* Do this"):
        ReplayBuffer.from_zarr(tmp_path / "none", ("x",), "Do this")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="not a readable replay buffer"):
        ReplayBuffer.from_zarr(tmp_path / "empty", ("x",))


def test_human_demonstrations(pusht_zarr):
    train, val = load_pusht_lowdim(pusht_zarr, Windows(16, pad_before=1, pad_after=7))
    assert len(train) == 23804 and train[0]["obs"].shape == (16, 20) and train[0]["action"].shape == (16, 2)
    assert val is not None and len(val) > 100
    assert train.fit_normalizer()["obs"].scale.shape == (20,)
