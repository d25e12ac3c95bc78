"""The published Kitchen policy (768 wide, two of its eight layers): its checkpoints load and are accelerated."""

from __future__ import annotations

import pickle

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bac.acceleration import accelerate
from bac.denoiser import model_blocks
from bac.schedule import Schedule
from bac.uniform import uniform
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.bac.tiny_policies import every_runtime
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file as the original project's `torch.save` writes it."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        cfg = compose(
            "train",
            [
                "task=kitchen_lowdim_abs",
                "task.policy.model.n_layer=2",
                "task.policy.num_inference_steps=10",
                "task.policy.noise_scheduler.num_train_timesteps=10",
            ],
        )
    policy_config = OmegaConf.to_container(cfg.task.policy, resolve=True)
    torch.manual_seed(0)
    policy = build_policy({"task": "kitchen_lowdim_abs", "policy": policy_config})
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 60), "action": torch.randn(50, 9)}))
    module = "diffusion_policy.workspace.train_diffusion_transformer_lowdim_workspace"
    workspace = f"{module}.TrainDiffusionTransformerLowdimWorkspace"
    path = tmp_path_factory.mktemp("kitchen") / "latest.ckpt"
    torch.save(
        {
            "cfg": OmegaConf.create(
                {"_target_": workspace, "policy": policy_config, "task": {"name": "kitchen_lowdim_abs"}}
            ),
            "state_dicts": {"ema_model": policy.state_dict()},
            "pickles": {"global_step": pickle.dumps(1)},
        },
        path,
    )
    yield path
    path.unlink()


@pytest.mark.slow
@every_runtime
def test_loads_and_accelerates(checkpoint, runtime):
    policy = load_policy(checkpoint).policy
    assert policy.model.input_emb.out_features == 768
    obs = {"obs": torch.linspace(-1, 1, 240).reshape(1, 4, 60)}

    def act(policy):
        return policy.predict_action(obs, torch.Generator().manual_seed(0))["action"]

    expected = act(policy)
    assert expected.shape == (1, 8, 9)
    blocks = model_blocks(policy.model)
    with accelerate(policy, Schedule.full(blocks, 10), runtime) as fast:
        torch.testing.assert_close(act(fast), expected, rtol=0, atol=2e-5)
    with accelerate(policy, uniform(blocks, 10, 5), "reference") as fast:
        cached = act(fast)
    assert (cached - expected).abs().max() > 1e-3
    with accelerate(policy, uniform(blocks, 10, 5), runtime) as fast:
        torch.testing.assert_close(act(fast), cached, rtol=0, atol=2e-5)
