"""What only the compiled runtime promises on a CPU, beyond the actions of `reference`."""

import time

import pytest
import torch

from bac.native.structs import FORMATS
from bac.runtime.compiled_cpu import CompiledCpuSampler
from bac.runtime.planned import PlannedSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import needs_compiler, random_schedule, seeded, tiny_model, tiny_sampler


@needs_compiler
def test_compiled_denoises_the_whole_trajectory_only():
    with pytest.raises(ValueError, match="all 6 tokens.*got 4.*runtime=planned"):
        CompiledCpuSampler(tiny_sampler(tiny_model()))(
            SamplerInputs(torch.zeros(2, 4, 2), observation=torch.zeros(2, 2, 3))
        )


@needs_compiler
@pytest.mark.parametrize("half", [False, True], ids=["float weights", "half weights"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_emb": 48, "n_head": 4, "horizon": 9, "n_layer": 3},
        {"n_cond_layers": 1},
        {"time_as_cond": False, "cond_dim": 0, "input_dim": 5, "output_dim": 5},
    ],
    ids=str,
)
def test_compiled_does_not_depend_on_threads_or_batch(half, changes):
    """Bit for bit: with as many threads as samples or more (a team on all of them), with fewer (shares), one by one."""
    model = tiny_model(half=half, **changes)
    base, schedule = tiny_sampler(model), random_schedule(model, 10, 0.4, 1)
    samplers = {threads: CompiledCpuSampler(base, schedule, threads=threads) for threads in (1, 2, 3)}
    known = torch.rand(5, model.horizon, model.input_dim) * 2 - 1
    mask = torch.rand(known.shape) < 0.2
    inputs = SamplerInputs(known, mask, torch.randn(5, 2, 3) if model.obs_as_cond else None)

    def run(threads, rows):
        return samplers[threads](inputs[rows], seeded(*range(5)[rows]))

    alone = torch.cat([run(1, slice(i, i + 1)) for i in range(5)])
    for batch in (1, 2, 5):
        for threads in samplers:
            assert torch.equal(run(threads, slice(0, batch)), alone[:batch]), (batch, threads)
            assert torch.equal(run(threads, slice(5 - batch, 5)), alone[5 - batch :]), (batch, threads)


@needs_compiler
def test_compiled_groups_of_many_samples():
    """More samples than one thread takes through the loop together."""
    model = tiny_model(n_layer=1)
    base, schedule = tiny_sampler(model, steps=4), random_schedule(model, 4, 0.4, 1)
    inputs = SamplerInputs(torch.zeros(21, 6, 2), observation=torch.randn(21, 2, 3))
    one, two = (CompiledCpuSampler(base, schedule, threads=threads) for threads in (1, 2))
    many = one(inputs, seeded(*range(21)))
    assert torch.equal(many, two(inputs, seeded(*range(21))))
    alone = [one(inputs[i : i + 1], seeded(i)) for i in range(21)]
    assert torch.equal(many, torch.cat(alone))


@needs_compiler
@pytest.mark.parametrize("half", [False, True], ids=["float weights", "half weights"])
def test_compiled_reads_half_the_bytes_where_that_loses_nothing(half):
    sampler = CompiledCpuSampler(tiny_sampler(tiny_model(half=half)))
    layer = sampler.native_model.layer[0]
    if "half" not in sampler.level.formats:
        pytest.skip("this processor does not convert half precision")
    expected = FORMATS["half" if half else "float"]
    assert {matrix.format for matrix in (layer.qkv, layer.out, layer.up, layer.down)} == {expected}
    assert sampler.bytes_per_weight == (2 if half else 4)


@needs_compiler
def test_compiled_is_faster_than_pytorch_on_this_processor():
    """Whatever its vectors' width: where they are narrow it was slower once, with the same actions."""
    model = tiny_model(n_layer=4, n_emb=256, n_head=4, horizon=16)
    base, threads = tiny_sampler(model), torch.get_num_threads()
    samplers = {"planned": PlannedSampler(base), "compiled": CompiledCpuSampler(base, threads=1)}
    inputs = SamplerInputs(torch.zeros(1, 16, 2), observation=torch.zeros(1, 2, 3))
    seconds = {name: [] for name in samplers}
    torch.set_num_threads(1)
    try:
        for name in [*samplers] * 6:
            started = time.perf_counter()
            samplers[name](inputs, seeded(0)[0])
            seconds[name].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    assert min(seconds["compiled"]) < 0.8 * min(seconds["planned"])
