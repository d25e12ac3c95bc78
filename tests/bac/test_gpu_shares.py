"""Which policies fit the persistent kernel on which GPU, and which thread block has which weights."""

import pytest
import torch

from bac.native.gpu.packing import LOW, deal_weights
from bac.native.gpu.shares import PAD, Device, Launch, Shape, launch_of, share_bytes
from bac.runtime.persistent import draws_table

H100 = Device(132, 227 * 1024, 50 * 2**20)


@pytest.mark.parametrize("half", [False, True])
def test_every_weight_is_dealt_once(half):
    """As numbers of half precision; others as two of them, whose sum has 22 bits."""
    shapes = Shape(1, 32, 2, 2, 8, 2, half).rows
    layers = [[torch.randn(shape) for shape in shapes] for _ in range(2)]
    if half:
        layers = [[matrix.half().float() for matrix in matrices] for matrices in layers]
    expected = torch.cat([matrix.flatten() for matrices in layers for matrix in matrices]).sort().values
    for blocks in (1, 5, 16, 32):
        dealt, numbers = deal_weights(layers, blocks, half).float(), []
        for block in range(blocks):
            for _ in layers:
                for rows, length in shapes:
                    own = rows * (block + 1) // blocks - rows * block // blocks
                    parts = dealt[: own * (2 - half) * (length + PAD)].view(own, 2 - half, length + PAD)
                    dealt = dealt[parts.numel() :]
                    numbers.append((parts[:, 0] + (0 if half else parts[:, 1] / LOW))[:, :length].flatten())
        assert not len(dealt)
        assert (torch.cat(numbers).sort().values - expected).abs().max() <= (0 if half else 1e-6)


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
    assert "17 tokens" in launch_of(Shape(8, 256, 4, 2, 17, 2, True), H100)
    assert "activations" in launch_of(Shape(12, 768, 12, 10, 16, 2, True), H100)
    assert "width of 40" in launch_of(Shape(8, 40, 4, 2, 9, 2, True), H100)
    assert "MiB of weights" in launch_of(Shape(8, 256, 4, 2, 9, 2, True), Device(16, 163 * 1024, 4 * 2**20))


def test_draws_are_taken_as_they_lie():
    draws = torch.randn(5, 1, 6, 2)
    table = draws_table(list(draws))
    assert table.data_ptr() == draws.data_ptr() and torch.equal(table, draws.flatten(1))
    scattered = [draws[3], draws[0], draws[4].clone()]
    assert torch.equal(draws_table(scattered), torch.stack(scattered).flatten(1))
