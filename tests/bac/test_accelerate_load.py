"""accelerate() under load: several policies, threads and batch sizes, and hundreds of chunks."""

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from bac import accelerate
from tests.bac.tiny_policies import (
    TOLERANCE,
    act,
    error,
    every_runtime,
    hoisting_runtime,
    random_schedule,
    tiny_policy,
)


@every_runtime
def test_two_policies_at_once(runtime):
    first, second = tiny_policy(seed=1), tiny_policy("ddim", seed=2, n_layer=3)
    schedules = [random_schedule(policy.model, 10, 0.4, 0) for policy in (first, second)]
    alone = []
    for policy, schedule in zip((first, second), schedules):
        with accelerate(policy, schedule, runtime) as fast:
            alone.append(act(fast))
    with accelerate(first, schedules[0], runtime) as one, accelerate(second, schedules[1], runtime) as two:
        for _ in range(2):
            assert torch.equal(act(one), alone[0])
            assert torch.equal(act(two), alone[1])


@hoisting_runtime
@pytest.mark.parametrize("sampler", ["ddpm", "dpm-solver++"])
def test_calls_from_several_threads(runtime, sampler, one_torch_thread):
    """Bit-equal to calls one after the other, from any number of threads that compute with one torch thread each.

    That is all that is promised: matrix products of torch, which planned consists of, may round differently with
    another number of threads.
    """
    policy = tiny_policy(sampler)
    jobs = [(seed, 1 + seed % 3) for seed in range(24)]
    with accelerate(policy, random_schedule(policy.model, 10, 0.4, 0), runtime) as fast:
        expected = [act(fast, *job) for job in jobs]
        with ThreadPoolExecutor(3, initializer=one_torch_thread) as pool:
            got = list(pool.map(lambda job: act(fast, *job), jobs))
    assert all(torch.equal(a, b) for a, b in zip(got, expected))


@every_runtime
def test_changing_batch_sizes(runtime):
    """A sample's actions do not depend on what was computed before, nor (to rounding) on its batch."""
    policy = tiny_policy()
    with accelerate(policy, random_schedule(policy.model, 10, 0.4, 0), runtime) as fast:
        first = {batch: act(fast, batch=batch) for batch in (1, 5, 2)}
        for batch in (2, 1, 5):
            again = act(fast, batch=batch)
            assert torch.equal(again, first[batch])
            assert error(again, first[5][:batch]) < TOLERANCE


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@every_runtime
def test_memory_does_not_grow(runtime):
    """Hundreds of chunks of changing batch size: neither Python objects nor native memory accumulate."""
    policy = tiny_policy(steps=4, n_layer=1)
    with accelerate(policy, random_schedule(policy.model, 4, 0.4, 0), runtime) as fast:

        def work(chunks):
            for chunk in range(chunks):
                act(fast, chunk, batch=1 + chunk % 3)
            gc.collect()

        work(60)
        fast.milliseconds.clear()
        tracemalloc.start()
        work(30)
        before, _ = tracemalloc.get_traced_memory()
        work(150)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 20_000 + 150 * 100, "the latencies of the report and little else"
        if not Path("/proc/self/statm").exists():
            return
        resident = resident_bytes()
        work(300)
        assert resident_bytes() - resident < 4_000_000
