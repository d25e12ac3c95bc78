"""Make demonstrations with a task's scripted expert: bac demos task=block_pushing [n_episodes=1000 ...]

Writes the data set that `bac train` reads for the task (output=...), from seeds seed_start, seed_start + 1, ...
on. The same command after an interruption goes on where it stopped; n_workers=... only changes how long it
takes.
"""

from __future__ import annotations

from omegaconf import DictConfig

from bac_workbench.settings import check, launch


def main() -> None:
    launch(make_demos, "make_demos", __doc__)


def make_demos(cfg: DictConfig) -> None:
    import numpy as np
    from hydra.utils import instantiate

    from bac_workbench.console import console, progress_bar
    from diffusion_policy.demos.collect import collect
    from diffusion_policy.env_runner.task import task_from_config

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
            {name: demos[name] for name in ("source", "demonstrator") if name in demos},
            on_seed,
        )
    lengths = np.diff(buffer.episode_ends, prepend=0)
    console.print(
        f"{settings.output}: {buffer.n_episodes} episodes, {lengths.sum():,} rows, "
        f"{lengths.min()} to {lengths.max()} per episode, mean {lengths.mean():.1f}"
    )
