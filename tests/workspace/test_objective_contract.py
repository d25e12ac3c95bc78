"""An objective is a class and a YAML file: what a training asks of it, and nothing else."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.workspace.objectives.condition import ConditionObjective
from diffusion_policy.workspace.objectives.denoising import DenoisingObjective
from diffusion_policy.workspace.objectives.frozen_encoder import FrozenEncoderObjective
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.conftest import ROOT

CLASSES = {
    "denoising": DenoisingObjective,
    "flow": DenoisingObjective,  # on a policy whose noise is another
    "condition": ConditionObjective,
    "frozen_encoder": FrozenEncoderObjective,
}


class FirstActionObjective(torch.nn.Module):
    """A toy of our own: the first token of the condition encoder predicts the mean of an action chunk."""

    needs_init_checkpoint = True
    policy_acts = False
    recordable = False

    def __init__(self, policy, scale=1.0):
        super().__init__()
        self.policy, self.scale = policy, scale
        self.head = torch.nn.Linear(policy.model.n_emb, policy.action_dim)

    def prepare(self, train, val, folder, seed):
        return train, val

    def compute_loss(self, batch, generator=None, snr_gamma=None, noise_draws=1):
        obs = self.policy.normalizer["obs"].normalize(batch["obs"][:, : self.policy.n_obs_steps])
        tokens = self.policy.model.cond_obs_emb(obs)
        target = self.policy.normalizer["action"].normalize(batch["action"]).mean(1)
        return self.scale * ((self.head(tokens[:, 0]) - target) ** 2).mean()

    def optimizer_groups(self, weight_decay):
        return [{"params": [*self.head.parameters(), *self.policy.model.cond_obs_emb.parameters()]}]

    def trained_policy(self):
        return self.policy


def test_every_objective_has_a_file_and_every_file_an_objective():
    files = {path.stem: OmegaConf.load(path).objective for path in (ROOT / "config" / "objective").glob("*.yaml")}
    assert files.keys() == CLASSES.keys()
    for name, settings in files.items():
        assert settings._target_ == f"{CLASSES[name].__module__}.{CLASSES[name].__qualname__}"


def test_an_objective_of_ones_own_trains(train, tmp_path):
    first = train("training.max_steps=5")
    first.run()
    start = first.output_dir / "checkpoints" / "step-000005"
    cfg = first.cfg.copy()
    cfg.output_dir = str(tmp_path / "own")
    cfg.objective = {"_target_": f"{__name__}.FirstActionObjective", "scale": 2.0}
    with pytest.raises(ConfigError, match="init_checkpoint"):
        TrainWorkspace(cfg)
    with pytest.raises(ConfigError, match="rollout.n_episodes"):
        TrainWorkspace(cfg, rollout=lambda policy, step: 0.0)
    cfg.init_checkpoint = str(start)
    workspace = TrainWorkspace(cfg)
    workspace.run()
    before = load_policy(start).policy.state_dict()
    after = load_policy(workspace.output_dir / "checkpoints" / "step-000005").policy.state_dict()
    assert not torch.equal(after["model.cond_obs_emb.weight"], before["model.cond_obs_emb.weight"])
    assert torch.equal(after["model.head.weight"], before["model.head.weight"])
