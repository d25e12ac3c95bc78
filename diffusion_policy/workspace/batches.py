"""Batches of a training, in an order that depends on seed and step alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def shuffled_rows(length: int, batch_size: int, seed: int, step: int) -> Iterator[Tensor]:
    """Endless: the rows [B] of each batch from `step` on.

    An epoch takes every row once at most; rows that would make a smaller batch at its end are left out.

    Args:
        length: rows of the data set.
        batch_size: B; at most `length`.
        seed: of the training; every epoch shuffles anew.
    """
    per_epoch = length // batch_size
    while True:
        shuffle = torch.Generator().manual_seed(seed * 100_003 + step // per_epoch)
        permutation = torch.randperm(length, generator=shuffle)
        for index in range(step % per_epoch, per_epoch):
            yield permutation[index * batch_size : (index + 1) * batch_size]
            step += 1


def training_batches(
    dataset: Dataset, batch_size: int, seed: int, step: int, num_workers: int, pin_memory: bool
) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches from `step` on; every tensor [B, ...] on the CPU.

    Args:
        batch_size: B, or the size of the data set if that is smaller.
        num_workers: processes that load; 0: this one.
        pin_memory: for a GPU to copy from.
    """
    size = min(batch_size, len(dataset))
    rows = shuffled_rows(len(dataset), size, seed, step)
    loader = DataLoader(dataset, sampler=rows, batch_size=None, num_workers=num_workers, pin_memory=pin_memory)
    yield from loader
