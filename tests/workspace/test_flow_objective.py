"""objective=flow: a policy that learns by flow matching is trained, stored, loaded and accelerated like any other."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir

from bac import accelerate
from bac.adapters import find_blocks
from bac.uniform import uniform
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.policy.flow_matching import FlowMatching
from tests.experiments.composed_settings import TASKS, checked
from tests.workspace.conftest import CONFIG


def test_trained_stored_and_accelerated(train):
    workspace = train("objective=flow", "training.max_steps=5")
    workspace.run()
    policy = load_policy(workspace.output_dir / "checkpoints" / "step-000005").policy
    assert type(policy.noise_scheduler) is FlowMatching and policy.num_inference_steps == 10
    obs = policy.random_observation(2)
    plain = policy.predict_action(obs, torch.Generator().manual_seed(0))["action"]
    with accelerate(policy, runtime="planned") as fast:
        got = fast.predict_action(obs, torch.Generator().manual_seed(0))["action"]
    torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-5)
    blocks = find_blocks(policy.model)
    with accelerate(policy, uniform(blocks, 10, 5), runtime="planned") as fast:
        fast.predict_action(obs)
    assert "on flow10" in str(fast.report()) and fast.report().block_updates == 5 * len(blocks)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_trained_so(task):
    register_resolvers()
    with initialize_config_dir(CONFIG, version_base=None):
        cfg = compose("train", overrides=[f"task={task}", "objective=flow"])
        flow = cfg.task.policy
        usual = compose("train", overrides=[f"task={task}"]).task.policy
    assert set(flow.noise_scheduler) == {"_target_", "num_train_timesteps", "prediction_type"}
    assert cfg.training.snr_gamma is None and flow.num_inference_steps == 10
    assert usual.noise_scheduler.prediction_type == "epsilon" and usual.num_inference_steps == 100


def test_weights_of_diffusion_are_refused():
    checked("train", "objective=flow")
    with pytest.raises(ConfigError, match="snr_gamma.*noise of diffusion"):
        checked("train", "objective=flow", "training.snr_gamma=5.0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_train_timesteps": 0}, "num_train_timesteps is 0"), ({"prediction_type": "epsilon"}, "one of 'flow'"),
     ({"beta_start": 0.1}, "beta_start")],
)  # fmt: skip
def test_impossible_settings_are_refused(train, changes, message):
    config = train("objective=flow").config
    config["policy"]["noise_scheduler"].update(changes)
    with pytest.raises(ConfigError, match=message):
        build_policy(config)
