"""LeRobot's own DiT denoiser and flow-matching loop in the suite of `bac.cache`: python tests/lerobot/multi_task_dit.py

For an interpreter with lerobot (`make check-lerobot`), which needs neither pytest nor this project's environment.
"""

# ruff: noqa: E402  (imports need the path that is set first)
from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.modules["tests"] = ModuleType("tests")  # some package there installs one of this name
sys.modules["tests"].__path__ = [str(ROOT / "tests")]

from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import DiffusionTransformer, FlowMatchingObjective

from bac import cache
from bac.adapters import find_blocks
from bac.uniform import uniform
from tests.bac.caching_suite import CHECKS, Subject
from tests.bac.foreign_models import ACTION, CONDITION, TOKENS, Case, randomised


def denoiser(rope: bool) -> DiffusionTransformer:
    """A small one with random weights: 2 layers of width 32."""
    config = MultiTaskDiTConfig(
        horizon=TOKENS, hidden_dim=32, num_layers=2, num_heads=2, timestep_embed_dim=16, use_rope=rope,
        use_positional_encoding=not rope,
    )  # fmt: skip
    features = SimpleNamespace(shape=(ACTION,))
    values = {**vars(config), "action_feature": features}
    return randomised(DiffusionTransformer(SimpleNamespace(**values), conditioning_dim=CONDITION))


def call(model: DiffusionTransformer, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    return model(x, t, conditioning_vec=condition)


def check_own_loop(model: DiffusionTransformer) -> None:
    """LeRobot's Euler integration of 10 steps calls the model 10 times, which are the steps of a chunk."""
    settings = SimpleNamespace(num_integration_steps=10, integration_method="euler")
    objective = FlowMatchingObjective(settings, ACTION, TOKENS)
    condition = torch.randn(2, CONDITION)

    def sample() -> Tensor:
        torch.manual_seed(0)
        return objective.conditional_sample(model, 2, condition)

    plain, blocks = sample(), find_blocks(model)
    with cache(model, uniform(blocks, 10, 10)) as cached, cached.chunk():
        assert torch.equal(sample(), plain)
    with cache(model, uniform(blocks, 10, 5)) as cached, cached.chunk():
        moved = (sample() - plain).abs().max()
    assert cached.block_updates.total() == 5 * len(blocks) and 0 < moved < 1e3


@torch.no_grad()
def main() -> None:
    for rope in (False, True):
        for name, check in CHECKS.items():
            model = denoiser(rope)
            check(Subject(Case(model, call), find_blocks(model)))
            print(f"multi_task_dit{' with RoPE' if rope else ''}: {name}: ok")
        check_own_loop(denoiser(rope))
        print(f"multi_task_dit{' with RoPE' if rope else ''}: own loop: ok")


if __name__ == "__main__":
    main()
