"""Train a policy: python scripts/train.py task=pusht_lowdim [training.max_steps=16000 device=cuda ...]

The same command after an interruption resumes from the last save, also with other training.max_steps, learning rate, device or
logging; settings that decide what the weights mean, or which batches come, have to be those of before.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "experiments")]

from bac_workbench.console import readable_errors  # noqa: E402
from bac_workbench.settings import check, launch  # noqa: E402
from bac_workbench.tracking import check_tracking, start_run  # noqa: E402
from bac_workbench.training.rollouts import rollout_function  # noqa: E402
from diffusion_policy.common.config import register_resolvers  # noqa: E402
from diffusion_policy.common.lock import locked  # noqa: E402
from diffusion_policy.workspace.train_workspace import TrainWorkspace  # noqa: E402

register_resolvers()


@hydra.main(version_base="1.3", config_path="../config", config_name="train")
def main(cfg: DictConfig) -> None:
    with readable_errors():
        settings = check(cfg, "train")
        check_tracking(settings.wandb)
        workspace = TrainWorkspace(cfg, rollout_function(settings))
        with locked(workspace.output_dir, workspace.purpose):
            workspace.wandb_run = start_run(
                settings.wandb,
                settings.to_dict(),
                f"train-{settings.task.name}",
                workspace.output_dir,
                resume=settings.resume,
            )
            workspace.run()
            if workspace.wandb_run is not None:
                workspace.wandb_run.finish()


if __name__ == "__main__":
    launch(main, "train", __doc__)
