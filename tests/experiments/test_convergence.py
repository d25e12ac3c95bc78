"""Every sampler that is offered ends where a converged one ends, on the bundled Push-T policy."""

from __future__ import annotations

import functools

import pytest
import torch

from bac.native.build import library
from bac.native.errors import NativeError
from bac.runtime.choose import make_sampler
from bac_workbench.setup.samplers import build_sampler, name_of
from diffusion_policy.common.checkpoint import load_policy
from tests.conftest import ROOT

pytest.importorskip("pymunk")
pytestmark = pytest.mark.usefixtures("quick_pictures")
OFFERED = sorted(path.stem for path in (ROOT / "config" / "sampler").glob("*.yaml"))
STATES = 16


@functools.cache
def policy():
    return load_policy(ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100").policy


@functools.cache
def inputs():
    """What the policy sees at the start of episodes."""
    from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

    env = PushTKeypointsEnv()
    seen = torch.stack([torch.as_tensor(env.reset(seed=seed)[0][:20], dtype=torch.float32) for seed in range(STATES)])
    return policy().sampler_inputs({"obs": seen[:, None].expand(-1, 2, -1).contiguous()})


def runtime() -> str:
    try:
        library()
        return "compiled"
    except NativeError:
        return "planned"


@functools.cache
def chunks(seed: int, **settings):
    """Executed actions [N, 8, 2], normalised, from noise that only the seed decides."""
    sampler = build_sampler(policy().sampler, settings)
    noise = [torch.Generator().manual_seed(1000 * seed + i) for i in range(STATES)]
    return make_sampler(sampler, None, runtime())(inputs(), noise)[:, policy().chunk]


def distance(a, b) -> float:
    return (a - b).square().mean().sqrt().item()


def offered(name: str) -> dict:
    from hydra import compose, initialize_config_dir

    from diffusion_policy.common.config import register_resolvers

    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        section = compose("eval", ["task=pusht_lowdim", f"sampler={name}"]).sampler
    return {key: value for key, value in section.items() if value is not None}


@pytest.mark.parametrize("name", OFFERED)
def test_an_offered_sampler_converges(name, one_torch_thread):
    """A deterministic one follows the converged solution from the same noise; a stochastic one stays among samples."""
    settings = offered(name)
    converged, other = (chunks(seed, type="ddim", steps=100) for seed in (1, 2))
    spread = distance(converged, other)  # between two noises
    got = chunks(1, **settings)
    assert got.abs().max() <= 1.01, "within the range of the demonstrations"
    stochastic = name_of(build_sampler(policy().sampler, settings), policy().sampler).startswith(("ddpm", "ancestral"))
    assert distance(got, converged) < (1.5 if stochastic else 0.35) * spread


@pytest.mark.parametrize("name", [name for name in OFFERED if name.startswith("ancestral")])
def test_an_offered_ancestral_sampler_follows_the_full_policy(name, one_torch_thread):
    """From the same noise it ends nearer to the full policy than another noise of the full policy does."""
    full, other = (chunks(seed, type="ddpm", steps=100) for seed in (1, 2))
    fresh = chunks(1, **offered(name), coupled=False)
    got = distance(chunks(1, **offered(name)), full)
    assert got < 0.6 * distance(other, full) and got < distance(fresh, full)


def test_few_steps_are_nearer_on_their_own_grid_than_on_those_of_diffusers(one_torch_thread):
    converged = chunks(1, type="ddim", steps=100)
    own, leading, trailing = (
        distance(chunks(1, type="ddim", steps=5, spacing=spacing), converged)
        for spacing in ("quadratic", "leading", "trailing")
    )
    assert own < leading and own < 0.7 * trailing


@pytest.mark.parametrize("kind", ["ddim", "dpmpp"])
def test_more_steps_come_closer(kind, one_torch_thread):
    converged = chunks(1, type="ddim", steps=100)
    few, many = (distance(chunks(1, type=kind, steps=steps), converged) for steps in (8, 50))
    assert many < 0.6 * few


def test_without_clipping_the_solver_diverges(one_torch_thread):
    """Which is what diffusers' own class does, and why it is offered with clipping only."""
    assert chunks(1, type="dpmpp", steps=16, clip_sample=False).abs().max() > 2
