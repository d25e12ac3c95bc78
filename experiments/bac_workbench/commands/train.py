"""Train a policy: bac train task=pusht_lowdim [training.max_steps=16000 device=cuda ...]

dataset=lerobot dataset.path=datas/lerobot/pusht_lowdim trains on a LeRobot data set in place of the task's own.
The same command after an interruption resumes from the last save, also with other training.max_steps, learning
rate, device or logging; settings that decide what the weights mean, or which batches come, have to be those of
before.
"""

from __future__ import annotations

from omegaconf import DictConfig

from bac_workbench.settings import check, launch


def main() -> None:
    launch(train, "train", __doc__)


def train(cfg: DictConfig) -> None:
    from omegaconf import OmegaConf, open_dict

    from bac_workbench.settings.data import with_chosen_dataset
    from bac_workbench.tracking import check_tracking, start_run
    from bac_workbench.training.rollouts import rollout_function
    from diffusion_policy.common.lock import locked
    from diffusion_policy.workspace.train_workspace import TrainWorkspace

    settings = with_chosen_dataset(check(cfg, "train"))
    with open_dict(cfg):  # the workspace builds what the composed settings say
        cfg.task.dataset = OmegaConf.create(settings.task.dataset.to_dict())
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
