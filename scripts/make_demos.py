"""Make demonstrations with a task's scripted expert: python scripts/make_demos.py task=block_pushing [n_episodes=1000 ...]

Writes the data set that `scripts/train.py` reads for the task (output=...), from seeds seed_start, seed_start + 1, ... on. The same
command after an interruption goes on where it stopped; n_workers=... only changes how long it takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "experiments")]


@hydra.main(version_base="1.3", config_path="../config", config_name="make_demos")
def main(cfg: DictConfig) -> None:
    # Imported here because worker processes import this file too: they need no torch.
    import numpy as np
    from hydra.utils import instantiate

    from bac_workbench.console import console, progress_bar, readable_errors
    from bac_workbench.settings import check
    from diffusion_policy.common.config import register_resolvers
    from diffusion_policy.demos.collect import collect
    from diffusion_policy.env_runner.task import task_from_config

    register_resolvers()
    with readable_errors():
        settings = check(cfg, "make_demos")
        if settings.task.environment is not None and "_target_" in settings.task.environment:
            task_from_config(settings.task.to_dict())  # raises for settings that cannot be
        demos = settings.task.demos.to_dict()
        with progress_bar() as bar:
            job, failed = bar.add_task("demonstrations", total=settings.n_episodes), []

            def on_seed(seed: int, kept: bool) -> None:
                failed.extend([] if kept else [seed])
                label = f"demonstrations, {len(failed)} failed seeds left out" if failed else "demonstrations"
                bar.update(job, advance=int(kept), description=label)

            buffer = collect(
                instantiate(demos["demonstrator"], _partial_=True),
                settings.output,
                settings.n_episodes,
                settings.seed_start,
                settings.n_workers,
                {name: demos[name] for name in ("source", "demonstrator")},
                on_seed,
            )
        lengths = np.diff(buffer.episode_ends, prepend=0)
        console.print(
            f"{settings.output}: {buffer.n_episodes} episodes, {lengths.sum():,} rows, "
            f"{lengths.min()} to {lengths.max()} per episode, mean {lengths.mean():.1f}"
        )


if __name__ == "__main__":
    from bac_workbench.settings import launch  # here because worker processes import this file too

    launch(main, "make_demos", __doc__)
