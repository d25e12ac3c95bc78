"""The order of batches depends on seed and step alone."""

from __future__ import annotations

import itertools

import torch

from diffusion_policy.workspace.batches import shuffled_rows, training_batches


def rows(length, size, seed, step, count):
    return [batch.tolist() for batch in itertools.islice(shuffled_rows(length, size, seed, step), count)]


def test_an_epoch_takes_every_row_once():
    epochs = rows(12, 3, seed=5, step=0, count=8)
    for epoch in (epochs[:4], epochs[4:]):
        assert sorted(itertools.chain(*epoch)) == list(range(12))
    assert epochs[:4] != epochs[4:]


def test_a_step_gets_its_batch_wherever_the_training_began():
    whole = rows(10, 3, seed=5, step=0, count=9)  # three batches an epoch, one row is left out
    for step in range(9):
        assert rows(10, 3, seed=5, step=step, count=9 - step) == whole[step:]
    assert rows(10, 3, seed=6, step=0, count=9) != whole


def test_a_data_set_that_is_smaller_than_a_batch_is_one_batch():
    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"number": 10 * index}

    batches = training_batches(Numbers(), batch_size=100, seed=0, step=0, num_workers=0, pin_memory=False)
    for batch in itertools.islice(batches, 2):
        assert sorted(batch["number"].tolist()) == [0, 10, 20, 30]
