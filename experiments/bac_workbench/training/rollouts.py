"""What training needs of the experiment side: rollouts that score a checkpoint."""

from __future__ import annotations

from omegaconf import DictConfig
from torch import nn

from bac.acceleration import accelerate
from bac.runtime.choose import RUNTIMES
from bac_workbench.evaluation.acting import acting
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.task import task_from_config
from diffusion_policy.workspace.train_workspace import RolloutFunction


def rollout_function(cfg: DictConfig) -> RolloutFunction | None:
    """Scores a policy by its mean score over `rollout.n_episodes` seeds from `rollout.seed_start`; None for 0 episodes.

    These seeds choose the checkpoint, so they must not be test seeds.

    Raises:
        ConfigError: a number that cannot be.
    """
    for name, least in (("n_episodes", 0), ("n_envs", 1), ("seed_start", 0)):
        value = cfg.rollout[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"rollout.{name}={value} is not possible: use a whole number, at least {least}")
    n = cfg.rollout.n_episodes
    if n == 0:
        return None
    if cfg.rollout.runtime not in RUNTIMES:
        raise ConfigError(f"rollout.runtime={cfg.rollout.runtime} is unknown: use {', '.join(RUNTIMES)}")
    task = task_from_config(cfg.task, n_train=0, n_test=n, test_start_seed=int(cfg.rollout.seed_start))
    task.check_installed()

    def score(policy: nn.Module, step: int) -> float:
        with (
            accelerate(policy, runtime=cfg.rollout.runtime) as fast,
            task.vector_env(min(int(cfg.rollout.n_envs), n)) as env,
        ):
            results, _ = rollout(acting(fast.predict_action, int(cfg.seed)), env, task.episodes())
        return sum(result.score for result in results) / len(results)

    return score
