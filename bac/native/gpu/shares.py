"""How many thread blocks run a model, which rows of its weights each of them keeps, and whether that fits a GPU."""

from __future__ import annotations

from dataclasses import dataclass

WARPS = 16  # of a thread block
THREADS = 32 * WARPS
#: tokens that a thread sums at once; the kernel is compiled for the smallest that holds a policy's
TILES = (8, 9, 12, 16)


@dataclass(frozen=True)
class Shape:
    """What the size of a launch depends on.

    Attributes:
        width: D; heads must divide it.
        numbers: of a token of the trajectory.
        observed: condition tokens beside the time token.
        half: weights are kept in half precision.
    """

    layers: int
    width: int
    heads: int
    numbers: int
    tokens: int
    observed: int
    half: bool

    @property
    def tile(self) -> int:
        """The smallest of `TILES` for these tokens; 0 if there is none."""
        return next((tile for tile in TILES if tile >= max(self.tokens, self.observed)), 0)

    @property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """(rows, length) of qkv, output, up and down."""
        d = self.width
        return (3 * d, d), (d, d), (4 * d, d), (d, 4 * d)

    @property
    def weight_bytes(self) -> int:
        return self.layers * 12 * self.width**2 * (2 if self.half else 4)

    @property
    def scratch(self) -> int:
        """Bytes of shared memory beside the weights; `Scratch` of block.hpp computes the same."""

        def up(count: int) -> int:
            return -(-count // 4) * 4

        tile, columns = self.tile, self.heads * (1 + self.observed)
        activations = tile * 2 * self.width + max(tile * (3 * self.width + 4), 2 * columns * self.width)
        scores = up(max(self.heads * tile * tile, columns * tile))
        return 4 * (activations + scores + 2 * WARPS * tile + 2 * up(tile * self.numbers))


@dataclass(frozen=True)
class Device:
    """What is asked of a GPU: multiprocessors, bytes of shared memory of a thread block, bytes of the L2 cache."""

    multiprocessors: int
    shared: int
    l2: int


@dataclass(frozen=True)
class Launch:
    """Attributes:
    blocks: thread blocks.
    resident: bytes of weights that each keeps in shared memory.
    share: bytes of weights of the block that has most; those above `resident` are read from the L2 cache.
    """

    blocks: int
    resident: int
    share: int


def share_bytes(shape: Shape, blocks: int) -> int:
    """Bytes of weights of the thread block that has most."""
    numbers = sum(-(-rows // blocks) * length for rows, length in shape.rows)
    return shape.layers * numbers * (2 if shape.half else 4)


def launch_of(shape: Shape, device: Device) -> Launch | str:
    """The launch for a model, or in words why it does not fit.

    As many thread blocks as make the largest share smallest, and no more: each one waits at every barrier.
    """
    if shape.tile == 0:
        return f"{max(shape.tokens, shape.observed)} tokens, more than {TILES[-1]}"
    if shape.width % 16 or (shape.width // shape.heads) % 4:
        return f"a width of {shape.width} in {shape.heads} heads, not in multiples of 16 and 4"
    blocks = min(range(1, device.multiprocessors + 1), key=lambda count: (share_bytes(shape, count), count))
    room = (device.shared - shape.scratch) // 16 * 16
    if room < 0:
        return f"{shape.scratch:,} bytes of activations, more than the {device.shared:,} of shared memory"
    share = share_bytes(shape, blocks)
    if share > room and shape.weight_bytes > device.l2 // 2:
        return (
            f"{shape.weight_bytes / 2**20:.0f} MiB of weights, more than fit into shared memory "
            f"({blocks} times {room:,} bytes) or half of the L2 cache"
        )
    return Launch(blocks, min(share, room), share)
