"""Checks and words of `bac.schedule` that need no schedule."""

from __future__ import annotations

from collections.abc import Sequence

from bac.blocks import execution_order
from bac.provenance import ScheduleError, integer, sequence
from bac.strict_json import short_repr, some

# Far above any sampler and model; they keep a damaged file from asking for all memory or time.
MAX_STEPS = 100_000
MAX_BLOCKS = 3_072
MAX_CELLS = 1_000_000  # steps times blocks: 1,000 steps of 333 layers


def in_execution_order(names) -> tuple[str, ...]:
    """The names in execution order, or a `ScheduleError`."""
    try:
        return execution_order(names)
    except ValueError as error:
        raise ScheduleError(str(error)) from error


def step_count(steps: int) -> int:
    """A number of denoising steps as a plain int, or a `ScheduleError`."""
    steps = integer(steps, "the number of denoising steps")
    if not 1 <= steps <= MAX_STEPS:
        raise ScheduleError(f"the number of denoising steps must lie in 1..{MAX_STEPS}, got {short_repr(steps)}")
    return steps


def check_size(steps: int, n_blocks: int) -> None:
    """Refuses more decisions than a schedule holds."""
    if n_blocks > MAX_BLOCKS or steps * n_blocks > MAX_CELLS:
        raise ScheduleError(
            f"{steps} steps of {n_blocks} blocks are more than a schedule holds (at most {MAX_BLOCKS:,} blocks, "
            f"and {MAX_CELLS:,} steps times blocks): check the number of layers and steps"
        )


def step_indices(values: Sequence[int], steps: int, what: str) -> list[int]:
    """Distinct step indices in [0, steps) as plain ints, or a `ScheduleError`."""
    values = sequence(values, what)
    if len(values) > steps:
        raise ScheduleError(f"{what} must not repeat, got {len(values)} of {steps} steps")
    indices = [integer(value, what) for value in values]
    outside = [k for k in indices if not 0 <= k < steps]
    if outside:
        raise ScheduleError(f"{what} must lie in 0..{steps - 1}, got {short_repr(outside[0])}")
    if len(set(indices)) != len(indices):
        raise ScheduleError(f"{what} must not repeat, got {short_repr(indices)}")
    return indices


def span(blocks: Sequence[str]) -> str:
    """Blocks in a few words."""
    return f"{len(blocks)} blocks ({blocks[0]} ... {blocks[-1]})" if blocks else "no blocks"


def difference(own: Sequence[str], other: Sequence[str], other_name: str) -> str:
    """How the names of a schedule's blocks differ from others, in words."""
    in_own, in_other = set(own), set(other)
    missing = [name for name in own if name not in in_other]
    surplus = [name for name in other if name not in in_own]
    parts = [f"only in the schedule: {some(missing)}"] if missing else []
    parts += [f"only in {other_name}: {some(surplus)}"] if surplus else []
    return "; ".join(parts) or "the names agree but not their order"
