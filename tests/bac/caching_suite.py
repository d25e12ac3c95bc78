"""What has to hold for every denoiser whose branches are cached: one suite for all adapters.

Each check takes a `Subject` and asserts. Nothing here needs pytest.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from bac.branches import site_of
from bac.cached_model import CachedModel, CacheError, cache, observing
from bac.errors import Unavailable
from bac.schedule import Schedule
from bac.uniform import uniform
from tests.bac.foreign_models import STEPS, Case


@dataclass(frozen=True)
class Subject:
    case: Case
    blocks: tuple[str, ...]
    method: str = "forward"

    def cached(self, schedule: Schedule) -> CachedModel:
        return cache(self.case.model, schedule, method=self.method)

    def schedule(self, density: float = 0.4, seed: int = 0) -> Schedule:
        updates = np.random.default_rng(seed).random((STEPS, len(self.blocks))) < density
        updates[0] = True
        return Schedule(updates, self.blocks)

    def attributes(self) -> list[dict]:
        """What is set on every module itself."""
        return [dict(vars(module)) for module in self.case.model.modules()]


@contextmanager
def refused(kind: type[Exception], words: str) -> Iterator[None]:
    try:
        yield
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}")


def check_all_updates_are_the_model(subject: Subject) -> None:
    plain = subject.case.sample(2)
    with subject.cached(Schedule.full(subject.blocks, STEPS)) as cached:
        assert torch.equal(subject.case.sample(2), plain)
    assert cached.exact and cached.chunks == 1


def check_reuse_adds_what_the_last_update_gave(subject: Subject) -> None:
    """Told independently: each branch is replaced by what the cached run saw it give at its last update."""
    schedule, log = subject.schedule(), {}
    observer = observing(lambda step, block, feature: log.update({(step, block): feature}))
    with cache(subject.case.model, schedule, method=subject.method, around=observer):
        got = subject.case.sample(2)
    assert {(k, block) for block, steps in schedule.update_steps.items() for k in steps} == set(log)
    calls: Counter[str] = Counter()
    for block in subject.blocks:
        module, method = site_of(subject.case.model, block)
        original = getattr(module, method)

        def replay(*args, block=block, original=original, **kwargs):
            step = calls[block]
            calls[block] += 1
            if (step, block) in log:
                return original(*args, **kwargs)
            feature = log[max(k for k, name in log if name == block and k < step), block]
            return (feature, None) if isinstance(original(*args, **kwargs), tuple) else feature

        vars(module)[method] = replay
    try:
        assert torch.equal(subject.case.sample(2), got)
    finally:
        for block in subject.blocks:
            module, method = site_of(subject.case.model, block)
            del vars(module)[method]


def check_every_block_matters(subject: Subject) -> None:
    """Holding one block alone changes the actions, and they stay finite."""
    plain = subject.case.sample()
    for block in subject.blocks:
        steps = {name: [0] if name == block else list(range(STEPS)) for name in subject.blocks}
        with subject.cached(Schedule.from_steps(steps, STEPS)) as cached:
            moved = (subject.case.sample() - plain).abs().max()
        assert 1e-6 < moved < 1e3, (block, moved)
        assert cached.block_updates[block] == 1


def check_only_updates_compute(subject: Subject) -> None:
    """Branches are computed as often as the schedule says, and once more in the self-test."""
    schedule, computed = subject.schedule(), Counter()
    sites = {block: site_of(subject.case.model, block) for block in subject.blocks}
    for block, (module, method) in sites.items():
        original = getattr(module, method)

        def counted(*args, block=block, original=original, **kwargs):
            computed[block] += 1
            return original(*args, **kwargs)

        vars(module)[method] = counted
    before = subject.attributes()
    try:
        with subject.cached(schedule) as cached:
            subject.case.sample(3)
            subject.case.sample(3)
        assert subject.attributes() == before  # also what somebody else had put there
    finally:
        for module, method in sites.values():
            del vars(module)[method]
    assert cached.block_updates == Counter({b: 2 * n for b, n in schedule.updates_per_block.items()})
    assert computed == cached.block_updates + Counter(subject.blocks)


def check_removal_restores_the_model(subject: Subject) -> None:
    plain, before = subject.case.sample(), subject.attributes()
    with subject.cached(uniform(subject.blocks, STEPS, 2)):
        assert not torch.equal(subject.case.sample(), plain)
    assert subject.attributes() == before and torch.equal(subject.case.sample(), plain)


def check_nesting_is_refused(subject: Subject) -> None:
    schedule = subject.schedule()
    with subject.cached(schedule):
        expected = subject.case.sample()
        with refused(Unavailable, "cached already"), subject.cached(schedule):
            pass
        assert torch.equal(subject.case.sample(), expected)
    with subject.cached(schedule):  # one after the other is no nesting
        assert torch.equal(subject.case.sample(), expected)


def check_errors_leave_nothing_behind(subject: Subject) -> None:
    """An error inside of the model, at the third step: the next chunk starts from nothing stored."""
    model, before, count = subject.case.model, subject.attributes(), 0
    head = model.head if hasattr(model, "head") else list(model.children())[-1]

    def fail(*_):
        nonlocal count
        count += 1
        if count == 4:  # the self-test takes one more
            raise KeyError("sensor")

    with subject.cached(subject.schedule()) as cached:
        hook = head.register_forward_hook(fail)
        with refused(KeyError, "sensor"):
            subject.case.sample(2)
        hook.remove()
        again = subject.case.sample(2)
    assert cached.chunks == 1 and subject.attributes() == before
    with subject.cached(subject.schedule()):
        assert torch.equal(subject.case.sample(2), again)


def check_batches(subject: Subject) -> None:
    """A row of a batch is what it is alone; a chunk keeps its batch; the next one may have another."""
    with subject.cached(subject.schedule()) as cached:
        together = subject.case.sample(3)
        for row in range(3):
            torch.testing.assert_close(subject.case.sample(1, seed=row)[0], together[row], rtol=1e-4, atol=1e-5)
        subject.case.sample(2, steps=STEPS - 1)
        with refused(CacheError, "restart()"):
            subject.case.sample(3)
        assert torch.equal(subject.case.sample(3), together)
        with refused(CacheError, f"called the model {STEPS - 1} times"), cached.chunk():
            subject.case.sample(3, steps=STEPS - 1)
        with refused(CacheError, f"called the model {2 * STEPS} times"), cached.chunk():
            subject.case.sample(3, steps=2 * STEPS)
        with cached.chunk():
            assert torch.equal(subject.case.sample(3), together)


def check_threads_have_chunks_of_their_own(subject: Subject) -> None:
    with subject.cached(subject.schedule()):
        expected = [subject.case.sample(1, seed=seed) for seed in range(2)]
        got: dict[int, list[torch.Tensor]] = {}

        def work(seed: int) -> None:
            torch.set_num_threads(1)
            got[seed] = [subject.case.sample(1, seed=seed) for _ in range(3)]

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(x, expected[seed]) for seed in range(2) for x in got[seed])


def check_copies(subject: Subject) -> None:
    """A copy made inside would call the original's branches: it is refused. One made after is a model of its own."""
    with subject.cached(subject.schedule()), refused(Unavailable, "leave that `with` block"):
        copy.deepcopy(subject.case.model)
    twin = Case(copy.deepcopy(subject.case.model), subject.case.call)
    plain = subject.case.sample()
    with subject.cached(uniform(subject.blocks, STEPS, 1)):
        assert torch.equal(twin.sample(), plain)


CHECKS: dict[str, Callable[[Subject], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
