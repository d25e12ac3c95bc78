"""Threads of the native library are kept between chunks, and nothing grows with them."""

import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bac.runtime.compiled_cpu import CompiledCpuSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import needs_compiler, random_schedule, seeded, tiny_model, tiny_sampler

pytestmark = [
    needs_compiler,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


def sampler_and_inputs(threads):
    model = tiny_model()
    sampler = CompiledCpuSampler(tiny_sampler(model, steps=5), random_schedule(model, 5, 0.5, 0), threads=threads)
    return sampler, SamplerInputs(torch.zeros(2, 6, 2), observation=torch.ones(2, 2, 3))


def tasks():
    return len(os.listdir("/proc/self/task"))


def test_threads_are_kept_between_chunks_and_shared_by_samplers():
    sampler, inputs = sampler_and_inputs(5)
    first = sampler(inputs, seeded(0, 1))
    kept = tasks()
    assert all(torch.equal(sampler(inputs, seeded(0, 1)), first) for _ in range(20)) and tasks() == kept
    another, _ = sampler_and_inputs(3)
    assert torch.equal(another(inputs, seeded(0, 1)), first) and tasks() == kept


def test_calls_from_several_threads_do_not_mix():
    sampler, inputs = sampler_and_inputs(3)
    expected = [sampler(inputs, seeded(i, i + 1)) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        actions = list(pool.map(lambda i: sampler(inputs, seeded(i, i + 1)), range(24)))
    assert all(torch.equal(a, b) for a, b in zip(actions, expected, strict=True))


def test_a_forked_process_has_threads_of_its_own():
    sampler, inputs = sampler_and_inputs(3)
    expected = sampler(inputs, seeded(0, 1))
    child = os.fork()
    if child == 0:
        same = torch.equal(sampler(inputs, seeded(0, 1)), expected)
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) == 0 and os.WIFEXITED(status)
    assert torch.equal(sampler(inputs, seeded(0, 1)), expected)


def test_nothing_grows_with_the_number_of_chunks():
    sampler, inputs = sampler_and_inputs(2)
    page = resource.getpagesize()

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * page

    def run(chunks):
        for i in range(chunks):
            sampler(inputs, seeded(i, i))

    run(200)
    before, threads = resident(), tasks()
    run(1000)
    assert resident() - before < 1 << 20 and tasks() == threads
