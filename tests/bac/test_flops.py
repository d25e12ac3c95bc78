"""FLOPs counted per block: known sizes, and PyTorch's own counter of matrix products."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bac.denoiser import branch, model_blocks
from bac.flops import denoiser_cost, hoisted_cost
from bac.runtime.planned import PlannedSampler
from bac.runtime.reference import ReferenceSampler
from bac.schedule import Schedule
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import random_schedule, tiny_model, tiny_sampler

FORMS = {
    "decoder": {},
    "time only": {"cond_dim": 0},
    "condition encoder": {"n_cond_layers": 2, "n_layer": 1},
    "encoder only": {"cond_dim": 0, "time_as_cond": False},
}


def inputs_of(model) -> SamplerInputs:
    observation = torch.zeros(1, 2, 3) if model.obs_as_cond else None
    return SamplerInputs(torch.zeros(1, model.horizon, 2), observation=observation)


def counted(function, *arguments) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*arguments)
    return counter.get_total_flops()


@pytest.fixture
def written_out(monkeypatch):
    """The counter does not know the fused attention of the CPU: attention as two matrix products."""

    def attention(q, k, v, attn_mask=None):
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        return torch.matmul((scores if attn_mask is None else scores + attn_mask).softmax(-1), v)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)


def pusht() -> TransformerForDiffusion:
    return TransformerForDiffusion(2, 2, 16, 2, 20, n_layer=8, n_head=4, n_emb=256, causal_attn=True)


def test_pusht_size():
    """Paper-size model: MACs of each block and FLOPs of an action chunk of 100 steps."""
    model = pusht()
    cost = denoiser_cost(model)
    for layer in range(8):
        macs = [cost.blocks[f"decoder.layers.{layer}.{kind}"] for kind in ("sa", "ca", "ffn")]
        assert [round(value / 1e6, 3) for value in macs] == [4.325, 2.515, 8.389]
    assert cost.per_step == pytest.approx(1.599e6, rel=1e-3)
    assert cost.flops(Schedule.full(model_blocks(model), 100)) / 1e9 == pytest.approx(24.69, abs=0.005)


@pytest.mark.parametrize("form", FORMS)
def test_blocks_as_pytorch_counts_them(form, written_out):
    model = tiny_model(**FORMS[form])
    cost = denoiser_cost(model)
    x, memory = torch.zeros(1, model.T, model.n_emb), torch.zeros(1, model.T_cond, model.n_emb)
    masks = model.masks(model.T, model.T_cond)
    for name in model_blocks(model):
        assert 2 * cost.blocks[name] == counted(branch(model, name, *masks), x, memory), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [None, 4])
def test_chunks_as_pytorch_counts_them(form, tokens, written_out):
    model = tiny_model(**FORMS[form])
    if model.encoder_only and tokens is not None:
        pytest.skip("all of its tokens are needed")
    schedule = random_schedule(model, 10, 0.4, 0)
    inputs = inputs_of(model)
    base = tiny_sampler(model)
    sampler = ReferenceSampler(base, schedule, tokens=tokens)
    assert denoiser_cost(model, tokens).flops(schedule) == counted(sampler, inputs)
    if tokens is None:
        assert denoiser_cost(model).flops(Schedule.full(schedule.blocks, 10)) == counted(base, inputs)


@pytest.mark.parametrize(("form", "tokens"), [("decoder", None), ("decoder", 4), ("time only", 1), ("encoder only", 6)])
def test_loop_of_the_planned_runtime_as_pytorch_counts_it(form, tokens, written_out):
    model = tiny_model(**FORMS[form])
    schedule = random_schedule(model, 10, 0.4, 0)
    sampler = PlannedSampler(tiny_sampler(model), schedule, tokens=tokens)
    inputs = inputs_of(model)
    with torch.no_grad():
        initial, noise = sampler.hoisted.draw(inputs.known, None)
        memory = sampler.hoisted.memory(inputs)
    counts = counted(sampler.loop.run, initial, noise, inputs.head(tokens), memory)
    assert hoisted_cost(model, tokens).flops(schedule) == counts


def test_executed_tokens_of_the_papers_size():
    """9 of Push-T's 16 tokens: 42 % fewer FLOPs, as attention is quadratic in them."""
    model = pusht()
    full = Schedule.full(model_blocks(model), 100)
    assert 1 - denoiser_cost(model, 9).flops(full) / denoiser_cost(model).flops(full) == pytest.approx(0.42, abs=0.01)
    for tokens in (0, 17):
        with pytest.raises(ValueError, match="use 1 to 16"):
            denoiser_cost(model, tokens)
