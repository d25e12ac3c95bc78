"""What a fast runtime refuses: inputs that do not fit, models it cannot run."""

import pytest
import torch

from bac.runtime.compiled_cpu import CompiledCpuSampler
from bac.runtime.planned import PlannedSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import FAST, hoisting_runtime, seeded, tiny_model, tiny_sampler


@hoisting_runtime
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"known": torch.zeros(2, 6, 3)}, r"known has shape \(2, 6, 3\).*\[B, up to 6, 2\]"),
        ({"known": torch.zeros(2, 7, 2)}, r"known has shape \(2, 7, 2\)"),
        ({"mask": torch.ones(1, 6, 2, dtype=torch.bool)}, r"mask has shape \(1, 6, 2\)"),
        ({"mask": torch.ones(2, 6, 2)}, "mask has dtype torch.float32, it must be boolean"),
        ({"observation": torch.zeros(1, 2, 3)}, r"observation has shape \(1, 2, 3\).*B = 2"),
        ({"observation": torch.zeros(2, 3, 3)}, r"observation has shape \(2, 3, 3\), expected \[2, up to 2, 3\]"),
        ({"observation": None}, "conditioned on observations"),
        ({"generator": seeded(0)}, "1 generators for a batch of 2"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(runtime, change, message):
    """The native code reads memory by these shapes, so they are checked, not broadcast."""
    fits = {"known": torch.zeros(2, 6, 2), "mask": None, "observation": torch.zeros(2, 2, 3), "generator": None}
    sampler = FAST[runtime](tiny_sampler(tiny_model()))

    def call(known, mask, observation, generator):
        return sampler(SamplerInputs(known, mask, observation), generator)

    call(**fits)
    with pytest.raises(ValueError, match=message):
        call(**{**fits, **change})


@hoisting_runtime
def test_training_mode_is_refused(runtime):
    model = tiny_model()
    sampler = FAST[runtime](tiny_sampler(model))
    model.train()
    with pytest.raises(RuntimeError, match=r"training mode.*policy.eval\(\)"):
        sampler(SamplerInputs(torch.zeros(1, 6, 2), observation=torch.zeros(1, 2, 3)))


def test_models_a_runtime_cannot_run():
    with pytest.raises(ValueError, match="n_emb divisible by 16, this model has 40: use runtime=planned"):
        CompiledCpuSampler(tiny_sampler(tiny_model(n_emb=40)))
    with pytest.raises(ValueError, match="maps 2 to 3"):
        PlannedSampler(tiny_sampler(tiny_model(output_dim=3)))
