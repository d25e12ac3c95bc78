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

    from bac_workbench.provenance import hardware
    from bac_workbench.settings.data import with_chosen_dataset
    from bac_workbench.tracking.identity import Identity, hardware_tag
    from bac_workbench.tracking.run import Tracker, check_tracking
    from bac_workbench.training.rollouts import rollout_function
    from diffusion_policy.common.lock import locked
    from diffusion_policy.workspace.train_workspace import TrainWorkspace

    settings = with_chosen_dataset(check(cfg, "train"))
    with open_dict(cfg):  # the workspace builds what the composed settings say
        cfg.task.dataset = OmegaConf.create(settings.task.dataset.to_dict())
    check_tracking(settings.wandb)
    workspace = TrainWorkspace(cfg, rollout_function(settings))
    name, objective = settings.task.name, settings.objective.to_dict()["_target_"].rpartition(".")[2]
    identity = Identity.of(
        name, "train", workspace.output_dir.name, [objective, hardware_tag(hardware(workspace.device))]
    )
    with (
        locked(workspace.output_dir, workspace.purpose),
        Tracker(settings.wandb, identity, settings.to_dict(), print, workspace.output_dir, settings.resume) as run,
    ):
        run.start()
        workspace.wandb_run = run
        workspace.run()
