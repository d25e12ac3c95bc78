"""Trajectories computed by the authors' code, reproduced by every runtime."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from safetensors.torch import load_file

from bac.denoiser import model_blocks
from bac.schedule import Schedule
from bac.uniform import uniform
from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import RUNTIMES, every_runtime

DDIM16 = "ddim16"


@pytest.fixture(scope="module")
def golden(golden_dir):
    folder = golden_dir / "tiny_lowdim"
    case = json.loads((folder / "case.json").read_text())
    model = TransformerForDiffusion(**case["model"]).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    with np.load(folder / "arrays.npz") as arrays:
        return model, case, {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def schedule_of(name: str, case: dict, blocks: tuple[str, ...]) -> Schedule:
    """The authors force one refresh at step 99 for ACS and BAC, not for Uniform."""
    if name == "acs10":
        return Schedule.from_steps(case["acs_steps"]["cosine"]["10"], 100).with_refresh([99])
    if name == "bac10":
        return Schedule.from_steps(case["bua"]["steps"], 100).with_refresh([99])
    intervals = {"uniform10": 10, "uniform7_interval15": 15}
    return uniform(blocks, 100, interval=intervals[name]) if name in intervals else Schedule.full(blocks, 100)


@torch.no_grad()
def test_forward(golden):
    model, _, arrays = golden
    torch.testing.assert_close(model(arrays["x"], 37, arrays["cond"]), arrays["y"], rtol=0, atol=1e-5)


@every_runtime
@pytest.mark.parametrize("name", ["full", "uniform10", "uniform7_interval15", "acs10", "bac10", DDIM16])
def test_trajectory(golden, name, runtime):
    model, case, arrays = golden
    if name == DDIM16:
        settings = {key: value for key, value in case["scheduler"].items() if key != "variance_type"}
        base = DiffusionSampler(model, DDIMScheduler(**settings), 16)
        schedule = Schedule.full(model_blocks(model), 16)
    else:
        base = DiffusionSampler(model, DDPMScheduler(**case["scheduler"]), 100)
        schedule = schedule_of(name, case, model_blocks(model))
    noise = torch.Generator().manual_seed(case["noise_seed"])
    inputs = SamplerInputs(torch.zeros(arrays[name].shape), observation=arrays["cond"])
    got = RUNTIMES[runtime](base, schedule)(inputs, noise)
    torch.testing.assert_close(got, arrays[name], rtol=0, atol=1e-5)
