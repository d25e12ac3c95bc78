"""Profile a policy and write its schedules: python scripts/profile_blocks.py task=pusht_lowdim [sampler=ddim16 ...]"""
from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffusion_policy.common.config import register_resolvers  # noqa: E402
from experiments.benchmark import parse_method  # noqa: E402
from experiments.console import console, readable_errors  # noqa: E402
from experiments.schedules import assets_folder, measure_profile, profile_for, schedule_for  # noqa: E402
from experiments.settings import check, launch  # noqa: E402
from experiments.setup import load_experiment  # noqa: E402

register_resolvers()


@hydra.main(version_base="1.3", config_path="../config", config_name="profile_blocks")
def main(cfg: DictConfig) -> None:
    with readable_errors():
        cfg = check(cfg, "profile_blocks")
        OmegaConf.set_struct(cfg, False)
        methods = [parse_method(text) for text in cfg.schedules]
        experiment = load_experiment(cfg)
        folder = assets_folder(experiment)
        console.print(f"task {cfg.task.name}, {experiment.loaded}, sampler {cfg.sampler.name}")
        if cfg.overwrite:
            for path in (folder / "schedules").glob("*.json"):
                path.unlink()
            measure_profile(experiment, folder)
        else:
            profile_for(experiment, folder, console.print)
        for method in methods:
            schedule = schedule_for(experiment, method.cache, console.print)
            if schedule is not None:
                console.print(f"{method.label}: {schedule.update_count} block updates of {schedule.steps * len(schedule.blocks)}")
        console.print(f"profile, schedules and figures: {folder}")


if __name__ == "__main__":
    launch(main, "profile_blocks", __doc__)
