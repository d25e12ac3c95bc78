"""Block-wise caching of any transformer denoiser in any loop: `bac.cache(model, schedule)`.

The model's own code runs. Only what computes a residual branch is asked for at update steps alone; at every other step
the model is given the stored output in its place. A call of the model is a denoising step.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bac.branches import Takeover, site_of
from bac.errors import UserError
from bac.plan import check_reuse
from bac.reused import Stored, feature_of, held, reused
from bac.schedule import Schedule
from bac.solver import Solver

#: around(step, block, compute) -> what compute() gives, the output of a branch
Around = Callable[[int, str, Callable[[], Any]], Any]


class CacheError(UserError, RuntimeError):
    """A model or its loop does not do what a schedule is followed for."""


class _Chunk(threading.local):
    """Where a thread is in its chunk.

    Attributes:
        step: denoising steps done; `schedule.steps` of them are a chunk.
        position: blocks done in the running call; None between calls.
        like: shape and kind of the call's first tensor.
        stored: block -> its last two outputs.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.step, self.position = 0, None  # type: int, int | None
        self.like: Any = None
        self.stored: dict[str, Stored] = {}


class CachedModel:
    """A model whose branches follow a schedule; made by `cache`. See there."""

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        blocks: Sequence[str],
        method: str,
        solver: Solver | None,
        around: Around | None,
    ):
        self.model, self.schedule, self.around = model, schedule, around
        self.blocks = tuple(blocks)
        schedule.check_fits(self.blocks, schedule.steps if solver is None else solver.steps)
        check_reuse(schedule, solver)
        if hasattr(model, "_orig_mod"):
            raise CacheError(
                "the model is compiled, and compiled code calls no methods: give the module it was made of"
            )
        entry = (model, method)
        if not callable(getattr(model, method, None)):
            raise CacheError(
                f"{type(model).__name__} has no method {method}(): name the one that a loop calls once a step"
            )
        self._takeover = Takeover([entry, *(site_of(model, block) for block in self.blocks)], self._handle)
        self._chunk = _Chunk()
        self.exact = False
        self.chunks = 0
        self.block_updates: Counter[str] = Counter()

    # ---- attaching ----
    def attach(self) -> CachedModel:
        """Takes the branches over; `with` does this, too."""
        self._takeover.take()
        return self

    def remove(self) -> None:
        """Gives the model back as it was."""
        self._takeover.give_back()
        self._chunk.restart()

    def __enter__(self) -> CachedModel:
        return self.attach()

    def __exit__(self, *error: object) -> None:
        self.remove()

    # ---- chunks ----
    @contextmanager
    def chunk(self) -> Iterator[None]:
        """One chunk, from its first step to its last: what happens inside is checked to be `schedule.steps` calls.

        Raises:
            CacheError: there were fewer calls, or more. An error of the loop itself is passed on.
        """
        self.restart()
        before = self.chunks
        try:
            yield
        except BaseException:
            self.restart()
            raise
        calls = (self.chunks - before) * self.schedule.steps + self._chunk.step
        self.restart()
        if calls != self.schedule.steps:
            raise CacheError(
                f"the loop called the model {calls} times, and the schedule is of {self.schedule.steps} steps: "
                "use a schedule for this loop; calls that belong to one step (guidance) can go into one batch"
            )

    def restart(self) -> None:
        """The next call is the first step of a chunk; needed where a loop was left before its last step."""
        self._chunk.restart()

    # ---- calls ----
    def _handle(self, index: int, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if index:
            return self._branch(index - 1, original, args, kwargs)
        try:
            result = self._step(original, args, kwargs)
            if not self.exact:
                self._check_exactness(args, kwargs, result)
        except BaseException:
            self._chunk.restart()
            raise
        if self._chunk.step == self.schedule.steps:
            self.chunks += 1
            self._chunk.restart()
        return result

    def _step(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        chunk = self._chunk
        if chunk.position is not None:
            raise CacheError("the model calls itself, so a call is no denoising step: name another `method`")
        first = next((leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), None)
        like = None if first is None else (first.shape, first.dtype, first.device)
        if chunk.step and like != chunk.like:
            raise CacheError(
                f"step {chunk.step} of a chunk has an input {like}, its first step had {chunk.like}: a chunk keeps its "
                "batch; where a loop was left before its last step, call restart()"
            )
        chunk.like, chunk.position = like, 0
        result = original(*args, **kwargs)
        if chunk.position < len(self.blocks):
            raise CacheError(
                f"the model did not compute block {self.blocks[chunk.position]}: list those it computes at every call "
                "(PyTorch's fused encoder computes none: torch.backends.mha.set_fastpath_enabled(False) turns it off)"
            )
        chunk.step, chunk.position = chunk.step + 1, None
        return result

    def _branch(self, index: int, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        chunk, block = self._chunk, self.blocks[index]
        if chunk.position is None:
            return original(*args, **kwargs)  # called by itself, outside of a step
        if index != chunk.position:
            expected = self.blocks[chunk.position] if chunk.position < len(self.blocks) else "the end"
            raise CacheError(
                f"the model computes block {block} where {expected} was expected: list each block once, in the order "
                "in which they run"
            )
        chunk.position += 1
        if not self.schedule.updates[chunk.step, index]:
            return reused(chunk.stored[block], chunk.step, self.schedule.reuse, block)
        if self.around is None:
            output = original(*args, **kwargs)
        else:
            output = self.around(chunk.step, block, lambda: original(*args, **kwargs))
        chunk.stored[block] = held(chunk.stored.get(block), chunk.step, output, block)
        self.block_updates[block] += 1
        return output

    # ---- the self-test ----
    def _check_exactness(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """At a first step every block updates: the result has to be that of the model left alone, bit for bit."""
        self._takeover.give_back()
        try:
            module, method = self._takeover.sites[0]
            plain = getattr(module, method)(*args, **kwargs)
            self.exact = _same(result, plain)
            repeats = self.exact or _same(getattr(module, method)(*args, **kwargs), plain)
        finally:
            self._takeover.take()
        if not self.exact:
            advice = (
                "these blocks are not how it computes its branches"
                if repeats
                else "it gives another result at every call (dropout, noise, a state): call model.eval()"
            )
            raise CacheError(f"with all blocks computed the model does not give its own result, bit for bit: {advice}")


def observing(observe: Callable[[int, str, Tensor], object]) -> Around:
    """Calls observe(step, block, feature) with every branch output that is computed, [B, ...]."""

    def around(step: int, block: str, compute: Callable[[], Any]) -> Any:
        output = compute()
        observe(step, block, feature_of(output, block))
        return output

    return around


def _same(got: Any, expected: Any) -> bool:
    try:
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    except AssertionError:
        return False
    return True


def cache(
    model: nn.Module,
    schedule: Schedule,
    blocks: Sequence[str] | None = None,
    method: str = "forward",
    solver: Solver | None = None,
    around: Around | None = None,
) -> CachedModel:
    """Caches residual branches of a transformer denoiser, whatever loop calls it, inside a `with` block.

        schedule = uniform(bac.adapters.find_blocks(model), steps=10, budget=4)
        with bac.cache(model, schedule) as cached:
            actions = sample(model, observation)       # your own loop: it calls model(...) ten times
        print(cached.block_updates)

    A call of the model is a step; `schedule.steps` of them are a chunk, after which the next call starts another one.
    `with cached.chunk():` around a loop checks that, and `cached.restart()` starts anew where a loop was left early.
    Threads have chunks of their own.

    The first call is a self-test, which takes two calls' time: all blocks compute, and the result has to be that of
    the model alone, bit for bit.

    Args:
        model: any module. Its code runs as it is, so hooks, adapters and quantised layers are honoured.
        schedule: which block computes at which step.
        blocks: the model's, see `bac.blocks.Block`; None: those of the schedule.
        method: what a loop calls once per step.
        solver: the loop's, to check its number of steps, and that outputs may be extrapolated; None: unknown.
        around: computes branches in the model's place, as around(step, block, compute): to look at them
            (`observing`), or to time them.

    Raises:
        ScheduleError: the schedule is of other blocks, or extrapolates where nobody knows that the loop adds no noise.
        NoDenoiser: the model has no such block.
        Unavailable: on entering: the model is cached already.
        CacheError: the model is none that can be cached, or, at a call: it is not exact, its blocks run in another
            order, or a chunk changes its batch.
    """
    return CachedModel(model, schedule, schedule.blocks if blocks is None else blocks, method, solver, around)
