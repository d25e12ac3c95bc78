"""Which policies fit the persistent kernel on which GPU, and which thread block has which weights."""

import pytest
import torch

from bac.native.gpu.packing import deal_weights
from bac.native.gpu.shares import Device, Launch, Shape, launch_of, share_bytes
from bac.runtime.persistent import draws_table

H100 = Device(132, 227 * 1024, 50 * 2**20)


def test_every_weight_is_dealt_once():
    numbers = iter(range(10**6))
    layers = [
        [
            torch.tensor([[next(numbers) for _ in range(length)] for _ in range(rows)])
            for rows, length in Shape(1, 16, 2, 2, 8, 2, True).rows
        ]
        for _ in range(2)
    ]
    for blocks in (1, 5, 16, 100):
        dealt = deal_weights(layers, blocks)
        assert torch.equal(dealt.sort().values, torch.arange(len(dealt)))


@pytest.mark.parametrize("half", [False, True])
def test_the_bundled_size_on_a_large_gpu(half):
    """128 of 132 multiprocessors: all shares are equal, and more thread blocks would only wait for these."""
    shape = Shape(8, 256, 4, 2, 9, 2, half)
    launch = launch_of(shape, H100)
    assert isinstance(launch, Launch)
    assert launch.blocks == 128 and launch.share * 128 == shape.weight_bytes
    assert launch.resident + launch.scratch <= H100.shared
    assert (launch.resident == launch.share) is half
    assert all(share_bytes(shape, count) >= launch.share for count in range(1, 133))


def test_what_does_not_fit_is_said():
    assert "19 tokens" in launch_of(Shape(8, 256, 4, 2, 19, 2, True), H100)
    assert "activations" in launch_of(Shape(12, 768, 12, 10, 16, 2, True), H100)
    assert "width of 40" in launch_of(Shape(8, 40, 4, 2, 9, 2, True), H100)
    assert "MiB of weights" in launch_of(Shape(8, 256, 4, 2, 9, 2, True), Device(16, 163 * 1024, 4 * 2**20))


def test_draws_are_taken_as_they_lie():
    draws = torch.randn(5, 1, 6, 2)
    table = draws_table(list(draws))
    assert table.data_ptr() == draws.data_ptr() and torch.equal(table, draws.flatten(1))
    scattered = [draws[3], draws[0], draws[4].clone()]
    assert torch.equal(draws_table(scattered), torch.stack(scattered).flatten(1))
