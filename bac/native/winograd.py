"""3x3 convolutions as winograd.hpp computes them: F(m x m, 3 x 3) takes a tile of m x m outputs at once.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: finite points that inputs and weights are evaluated at, by the outputs of a tile's line; winograd.hpp has the same
POINTS = {2: (0, 1, -1), 4: (0, 0.75, -0.75, 1.5, -1.5)}
#: tiles by precision: in bfloat16 a larger one would multiply the rounding error by four, one of 2 by 1.6
TILES = {"fp32": (2, 4), "bf16": (2,)}
#: bytes of a transformed weight (half precision seldom holds it) and of another one, and how many products of an input
#: and a weight take as long as reading a byte of weights: measured on Zen 5, and a half more to spare its caches
COSTS = {"fp32": (4, 2, 2.5), "bf16": (2, 2, 5.0)}
FRAMES = 2  # that share a read of the weights: those of an observation


def choose_tile(channels: int, size: int, stride: int, padding: int, out: tuple[int, int], precision: str) -> int:
    """Which tile makes a convolution fastest: 2, 4, or 0 for the ordinary product.

    Tiles multiply less often, but have more weights to read, which takes longest where a map is small. The choice
    depends on shapes alone, so that a frame's features do not depend on the call.

    Args:
        channels, size, stride, padding: channels of the input, then the square kernel, its steps and the border.
        out: height and width of the output.
        precision: fp32 or bf16.
    """
    if size != 3 or stride != 1 or channels % 16:
        return 0
    transformed, plain, per_byte = COSTS[precision]
    seen = (3 * out[0] - 2 * padding) * (3 * out[1] - 2 * padding)  # pairs of an output and a pixel: taps.hpp
    costs = {0: FRAMES * seen + per_byte * 9 * plain}
    for tile in TILES[precision]:
        points, tiles = (tile + 2) ** 2, math.ceil(out[0] / tile) * math.ceil(out[1] / tile)
        costs[tile] = points * (FRAMES * tiles + per_byte * transformed)
    return min(costs, key=lambda tile: costs[tile])


def transform(weight: Tensor, tile: int) -> Tensor:
    """Kernels [out, in, 3, 3] -> their values at all points [out, tile + 2, tile + 2, in], in float32.

    Computed in float64. The denominators of the interpolation are in them, so that the transforms of inputs and outputs
    have small coefficients that binary numbers hold.
    """
    points = POINTS[tile]
    rows = [
        [point**power / math.prod(point - other for other in points if other != point) for power in range(3)]
        for point in points
    ]
    rows.append([0.0, 0.0, 1.0])  # infinity
    g = torch.tensor(rows, dtype=torch.float64)
    return torch.einsum("ay,oiyx,bx->oabi", g, weight.detach().double(), g).float()
