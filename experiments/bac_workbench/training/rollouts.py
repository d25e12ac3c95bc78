"""What training needs of the experiment side: rollouts that score a checkpoint."""

from __future__ import annotations

from torch import nn

from bac.acceleration import accelerate
from bac_workbench.console import console
from bac_workbench.settings.training import Train
from bac_workbench.setup.acting import acting
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import task_from_config
from diffusion_policy.workspace.train_workspace import RolloutFunction


def rollout_function(settings: Train) -> RolloutFunction | None:
    """Scores a policy by its mean score over `rollout.n_episodes` seeds from `rollout.seed_start`; None for 0 episodes.

    These seeds choose the checkpoint, so they must not be test seeds.
    """
    rollouts = settings.rollout
    if rollouts.n_episodes == 0:
        return None
    seeds = {"n_train": 0, "n_test": rollouts.n_episodes, "test_start_seed": rollouts.seed_start}
    task = task_from_config(settings.task.to_dict(), **seeds)
    task.check_installed()
    n_envs = min(rollouts.n_envs, rollouts.n_episodes)
    said = False

    def score(policy: nn.Module, step: int) -> float:
        nonlocal said
        with accelerate(policy, runtime=rollouts.runtime) as fast, task.vector_env(n_envs) as env:
            if not said:
                console.print(f"rollouts of {rollouts.n_episodes} episodes, denoising {fast.tokens}")
                said = True
            results, _ = rollout(acting(fast.predict_action, settings.seed), env, task.episodes())
        return sum(result.score for result in results) / len(results)

    return score
