"""How many thread blocks run a model, which rows of its weights each of them keeps, and whether that fits a GPU."""

from __future__ import annotations

from dataclasses import dataclass

WARPS, LANES = 16, 32  # of a thread block, of a warp
THREADS = LANES * WARPS
MOST_TOKENS = 18


@dataclass(frozen=True)
class Shape:
    """What the size of a launch depends on.

    Attributes:
        width: D; heads must divide it.
        numbers: of a token of the trajectory.
        observed: condition tokens beside the time token.
        half: weights are kept in half precision.
        causal: a token's self-attention sees itself and all earlier ones.
        slopes: outputs are extrapolated.
    """

    layers: int
    width: int
    heads: int
    numbers: int
    tokens: int
    observed: int
    half: bool
    causal: bool = True
    slopes: bool = False

    @property
    def groups(self) -> int:
        """Groups of three tokens, in which activations are exchanged."""
        return -(-max(self.tokens, self.observed) // 3)

    @property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """(rows, length) of qkv, output, up and down."""
        d = self.width
        return (3 * d, d), (d, d), (4 * d, d), (d, 4 * d)

    @property
    def weight_bytes(self) -> int:
        return self.layers * 12 * self.width**2 * (2 if self.half else 4)

    def scratch(self, blocks: int) -> int:
        """Bytes of shared memory of each of so many thread blocks beside the weights.

        `Scratch` of block.hpp computes the same.
        """

        def up(floats: int) -> int:
            return -(-floats // 4)

        groups, columns, width = self.groups, self.heads * (1 + self.observed), self.width
        stride, tile = groups | 1, 3 * groups
        activations = 2 * width * stride + max(3 * width * stride, columns * (2 * width + 4) // 4) + width * groups
        cross = width // 4 + up(columns) + max(self.heads * tile, columns) * groups
        partial = THREADS
        biases = up(self.layers * sum(-(-rows // blocks) for rows, _ in self.rows))
        plan = 2 * plan_row(self.layers)
        return 16 * (activations + cross + partial + biases + 3 * up(self.tokens * self.numbers) + plan)


def plan_row(layers: int) -> int:
    """Quads of a step's row of the plan: what the sampler does, and the most segments there can be (params.hpp)."""
    return 2 + 2 * (3 * layers + 1)


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
    scratch: bytes of shared memory that each uses beside weights.
    resident: bytes of weights that each keeps in shared memory.
    share: bytes of weights of the block that has most; those above `resident` are read from the L2 cache.
    """

    blocks: int
    scratch: int
    resident: int
    share: int


def share_bytes(shape: Shape, blocks: int) -> int:
    """Bytes of weights of the thread block that has most."""
    numbers = sum(-(-rows // blocks) * length for rows, length in shape.rows)
    return shape.layers * numbers * (2 if shape.half else 4)


def launch_of(shape: Shape, device: Device) -> Launch | str:
    """The launch for a model, or in words why it does not fit.

    As many thread blocks as make the largest share smallest, and no more: each one waits for all others.
    """
    most = max(shape.tokens, shape.observed)
    if most > MOST_TOKENS:
        return f"{most} tokens, more than {MOST_TOKENS}"
    if shape.width % 16 or (shape.width // shape.heads) % 4:
        return f"a width of {shape.width} in {shape.heads} heads, not in multiples of 16 and 4"
    # Each one has rows of every matrix, and so sends what the others wait for.
    counts = range(1, min(device.multiprocessors, shape.width) + 1)
    blocks = min(counts, key=lambda count: (share_bytes(shape, count), count))
    scratch = shape.scratch(blocks)
    room = (device.shared - scratch) // 16 * 16
    if room < 0:
        return f"{scratch:,} bytes of activations, more than the {device.shared:,} of shared memory"
    share = share_bytes(shape, blocks)
    if (share - room) * blocks > device.l2 // 2:
        return (
            f"{shape.weight_bytes / 2**20:.0f} MiB of weights, too many for shared memory "
            f"({blocks} times {room:,} bytes) and half of the L2 cache"
        )
    return Launch(blocks, scratch, min(share, room), share)


def macros_of(shape: Shape, launch: Launch) -> dict[str, int]:
    """What the kernel is compiled for: sizes that are constants to it."""
    names = ("layers", "heads", "width", "numbers", "tokens", "observed", "groups", "causal", "slopes")
    macros = {name.upper(): int(getattr(shape, name)) for name in names}
    return {**macros, "BLOCKS": launch.blocks, "FITS": int(launch.resident == launch.share)}
