"""The cache schedule: which block updates at which denoising step.

A `Schedule` is the only thing that profiling, the schedulers and the runtimes share. At an *update* step a block
computes and stores its residual-branch output; at every other step (*reuse*) the stored output is added instead, as it
is or extrapolated in the step index.
Step index 0 is the first, noisiest denoising step; nothing is cached yet there, so every block updates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bac import schedule_text
from bac.files import read_limited, write_atomic
from bac.provenance import Provenance, ScheduleError, sequence
from bac.schedule_checks import check_size, difference, in_execution_order, span, step_count, step_indices
from bac.strict_json import short_repr, some

__all__ = ["REUSE", "Provenance", "Schedule", "ScheduleError"]

#: what is added at a step where a block does not update
REUSE = ("hold", "extrapolate")

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, eq=False, repr=False)
class Schedule:
    """Immutable update decisions of every block at every denoising step.

    Two schedules are equal when they decide the same: same blocks, updates and reuse. Provenance is not compared.

    Attributes:
        updates: bool [steps, blocks], read-only; true where the block computes.
        blocks: block names in execution order, one per column.
        provenance: where the decisions come from.
        reuse: ``hold`` adds f(a), the output of the block's last update, at step a. ``extrapolate`` adds
            f(a) + (k - a) / (a - b) (f(a) - f(b)) at step k, b being the update before, and f(a) where there is none.
            It is for samplers without noise: a line through two steps says nothing about noise drawn since.

    Raises:
        ScheduleError: on construction, if the parts are invalid or do not fit each other.
    """

    updates: np.ndarray
    blocks: tuple[str, ...]
    provenance: Provenance = field(default_factory=Provenance)
    reuse: str = "hold"

    def __post_init__(self) -> None:
        updates = np.array(self.updates)
        blocks = tuple(sequence(self.blocks, "blocks"))
        check_size(1, len(blocks))
        ordered = in_execution_order(blocks)
        if blocks != ordered:
            first = next(i for i, name in enumerate(blocks) if name != ordered[i])
            raise ScheduleError(
                f"blocks must be in execution order: position {first} holds {short_repr(blocks[first])}, expected "
                f"{ordered[first]!r}; order names and columns with bac.blocks.execution_order"
            )
        if updates.dtype != np.bool_ or updates.ndim != 2:
            raise ScheduleError(
                f"updates must be a bool array [steps, blocks], got {updates.dtype} with shape "
                f"{updates.shape}; to build a schedule from lists of steps use Schedule.from_steps"
            )
        if updates.shape[0] < 1 or updates.shape[1] != len(blocks):
            raise ScheduleError(
                f"updates has shape {updates.shape}, but {len(blocks)} blocks need [steps >= 1, {len(blocks)}]"
            )
        check_size(*updates.shape)
        stale = [name for name, computes in zip(blocks, updates[0]) if not computes]
        if stale:
            raise ScheduleError(
                f"every block must update at step 0, where nothing is cached yet; add step 0 to {some(stale)}"
            )
        if not isinstance(self.provenance, Provenance):
            raise ScheduleError(f"provenance must be a Provenance, got {type(self.provenance).__name__}")
        if self.reuse not in REUSE:
            raise ScheduleError(f"reuse must be {' or '.join(REUSE)}, got {short_repr(self.reuse)}")
        if self.provenance.sampler_steps not in (None, updates.shape[0]):
            raise ScheduleError(
                f"updates has {updates.shape[0]} steps, but the provenance names a sampler with "
                f"{self.provenance.sampler_steps}; use the number of denoising steps of the profiled sampler"
            )
        updates.setflags(write=False)
        object.__setattr__(self, "updates", updates)
        object.__setattr__(self, "blocks", blocks)

    # ---- construction ------------------------------------------------------------------------------------------

    @classmethod
    def full(cls, blocks: Sequence[str], steps: int) -> Schedule:
        """Every block updates at every step: no caching."""
        steps = step_count(steps)
        check_size(steps, len(blocks))
        return cls(np.ones((steps, len(blocks)), bool), tuple(blocks), Provenance("full"))

    @classmethod
    def from_steps(
        cls,
        update_steps: Mapping[str, Sequence[int]],
        steps: int,
        provenance: Provenance | None = None,
        reuse: str = "hold",
    ) -> Schedule:
        """Build a schedule from the update steps of each block.

        Args:
            update_steps: block name -> step indices in [0, steps), in any order and without repetition.
            steps: number of denoising steps.
            provenance: where the decisions come from.
            reuse: see `Schedule`.
        """
        steps = step_count(steps)
        check_size(steps, len(update_steps))
        blocks = in_execution_order(update_steps)
        updates = np.zeros((steps, len(blocks)), bool)
        for column, name in enumerate(blocks):
            updates[step_indices(update_steps[name], steps, f"update steps of {name}"), column] = True
        return cls(updates, blocks, provenance if provenance is not None else Provenance(), reuse)

    def with_refresh(self, steps: Sequence[int]) -> Schedule:
        """A copy in which every block updates at the given steps too, recorded in its provenance."""
        extra = step_indices(steps, self.steps, "forced refresh steps")
        updates = self.updates.copy()
        updates[extra] = True
        refreshed = tuple(sorted({*self.provenance.forced_refresh, *extra}))
        return Schedule(updates, self.blocks, replace(self.provenance, forced_refresh=refreshed), self.reuse)

    # ---- reading -----------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Number of denoising steps."""
        return self.updates.shape[0]

    @property
    def update_count(self) -> int:
        """Number of block updates over all steps; ``steps * len(blocks)`` without caching."""
        return int(self.updates.sum())

    @property
    def updates_per_block(self) -> dict[str, int]:
        """Block name -> number of steps at which it updates, in execution order."""
        return {name: int(count) for name, count in zip(self.blocks, self.updates.sum(axis=0))}

    @property
    def active_steps(self) -> tuple[int, ...]:
        """Steps at which at least one block updates, ascending."""
        return tuple(int(k) for k in np.flatnonzero(self.updates.any(axis=1)))

    def steps_of(self, block: str) -> tuple[int, ...]:
        """Update steps of one block, ascending."""
        if block not in self.blocks:
            raise ScheduleError(f"{short_repr(block)} is not in this schedule of {span(self.blocks)}")
        return tuple(int(k) for k in np.flatnonzero(self.updates[:, self.blocks.index(block)]))

    @property
    def update_steps(self) -> dict[str, list[int]]:
        """Block name -> update steps, ascending, in execution order; what `from_steps` takes."""
        return {name: np.flatnonzero(column).tolist() for name, column in zip(self.blocks, self.updates.T)}

    @property
    def origin(self) -> str:
        """Where the decisions come from, in a few words, and how outputs are reused where they are not held."""
        return str(self.provenance) if self.reuse == "hold" else f"{self.provenance}, {self.reuse}d reuse"

    @property
    def digest(self) -> str:
        """SHA-256 of the decisions (blocks, updates and reuse, not the provenance), in hexadecimal."""
        decisions: list = [self.steps, [[name, steps] for name, steps in self.update_steps.items()]]
        if self.reuse != "hold":
            decisions.append(self.reuse)
        return hashlib.sha256(json.dumps(decisions).encode()).hexdigest()

    def macs(self, costs: Mapping[str, int], per_step: int = 0, per_chunk: int = 0) -> int:
        """Multiply-accumulates of one action chunk under this schedule (FLOPs are twice that).

        Args:
            costs: block name -> MACs of one update of that block, for exactly the blocks of the schedule.
            per_step: MACs that every denoising step costs whatever is cached (embedding, head, ...).
            per_chunk: MACs spent once per action chunk.
        """
        if set(costs) != set(self.blocks):
            raise ScheduleError(
                f"costs must name exactly the blocks of the schedule; {difference(self.blocks, tuple(costs), 'costs')}"
            )
        updates = sum(count * int(costs[name]) for name, count in self.updates_per_block.items())
        return updates + self.steps * int(per_step) + int(per_chunk)

    def check_fits(self, blocks: Sequence[str], steps: int, checkpoint_hash: str | None = None) -> None:
        """Raise `ScheduleError` unless this schedule was made for these blocks, step count and weights.

        The checkpoint is compared only if both sides know theirs: Uniform needs no profile and fits every one.
        """
        blocks = tuple(blocks)
        if blocks != self.blocks:
            raise ScheduleError(
                f"this schedule is for another model: it has {span(self.blocks)}, the model {span(blocks)}; "
                f"{difference(self.blocks, blocks, 'the model')}. Profile this model to get its own schedule."
            )
        if steps != self.steps:
            raise ScheduleError(
                f"this schedule is for {self.steps} denoising steps, the sampler takes {steps}. "
                "Use the sampler it was made for, or profile with this one."
            )
        own = self.provenance.checkpoint_hash
        if own is not None and checkpoint_hash is not None and own != checkpoint_hash:
            raise ScheduleError(
                f"this schedule was profiled on checkpoint {own}, the policy comes from checkpoint "
                f"{checkpoint_hash}. Profile the loaded checkpoint to get its own schedule."
            )

    # ---- comparing, printing, storing --------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        same = (self.blocks, self.reuse) == (other.blocks, other.reuse)
        return same and np.array_equal(self.updates, other.updates)

    def __hash__(self) -> int:
        return hash((self.blocks, self.reuse, self.updates.shape, self.updates.tobytes()))

    def __reduce__(self):
        # Copies, also those sent to a worker process, go through the constructor: validated and read-only again.
        return Schedule, (np.array(self.updates), self.blocks, self.provenance, self.reuse)

    def __repr__(self) -> str:
        size = f"{self.steps} steps x {len(self.blocks)} blocks"
        return f"Schedule({self.origin}; {size}, {self.update_count} updates)"

    def __str__(self) -> str:
        return schedule_text.to_grid(self)

    def save(self, path: str | Path) -> None:
        """Write the schedule as JSON, one line per block; the file appears complete or not at all."""
        write_atomic(path, schedule_text.to_json(self).encode("utf-8"))

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Read a schedule written by `save`.

        Raises:
            ScheduleError: the file is damaged or holds something else.
            OSError: the file cannot be opened.
        """
        path = Path(path)
        if path.parts[:1] == ("assets",) and not path.exists() and (_ROOT / path).exists():
            path = _ROOT / path  # what is shipped is found from every working directory
        try:
            return cls.from_steps(*schedule_text.from_json(read_limited(path, schedule_text.MAX_BYTES)))
        except FileNotFoundError as error:
            hint = "No schedule here; profile the checkpoint, or give the path of a stored schedule"
            raise FileNotFoundError(error.errno, hint, str(path)) from error
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from error
        except ValueError as error:  # of read_limited
            raise ScheduleError(f"{path} is no schedule: {error}; give a file written by Schedule.save") from error
