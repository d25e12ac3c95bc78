"""What tests of loading ask: how a policy acts, and with which message a file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError


def act(policy: nn.Module) -> torch.Tensor:
    """A chunk of actions of a low-dimensional policy, always from the same observation and noise."""
    obs = {"obs": torch.ones(2, policy.n_obs_steps, policy.obs_dim)}
    return policy.predict_action(obs, torch.Generator().manual_seed(0))["action"]


def refusal(path: str | Path, **settings: Any) -> str:
    """The message of the error that loading ends with; always one screen."""
    with pytest.raises(CheckpointError) as caught:
        load_policy(path, **settings)
    message = str(caught.value)
    assert len(message) < 1500 and message.count("\n") < 10
    return message
