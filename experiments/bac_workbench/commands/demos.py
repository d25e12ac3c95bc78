"""Make demonstrations with a task's scripted expert: bac demos task=block_pushing [n_episodes=1000 ...]

Writes the data set that `bac train` reads for the task (output=...), from seeds seed_start, seed_start + 1, ...
on. The same command after an interruption goes on where it stopped; n_workers=... only changes how long it
takes.
"""

from __future__ import annotations

from omegaconf import DictConfig

from bac_workbench.settings import launch


def main() -> None:
    launch(make_demos, "make_demos", __doc__)


def make_demos(cfg: DictConfig) -> None:
    import numpy as np
    from hydra.utils import instantiate

    from bac_workbench.console import console, progress_bar
    from bac_workbench.setup.experiment import make_task
    from diffusion_policy.common.config import to_plain
    from diffusion_policy.demos.collect import collect

    make_task(cfg)  # raises if the simulator is not installed
    settings = {key: value for key, value in to_plain(cfg.task)["demos"].items() if key in ("source", "demonstrator")}
    with progress_bar() as bar:
        job, failed = bar.add_task("demonstrations", total=cfg.n_episodes), []

        def on_seed(seed: int, kept: bool) -> None:
            failed.extend([] if kept else [seed])
            label = f"demonstrations, {len(failed)} failed seeds left out" if failed else "demonstrations"
            bar.update(job, advance=int(kept), description=label)

        buffer = collect(
            instantiate(cfg.task.demos.demonstrator, _partial_=True),
            str(cfg.output),
            cfg.n_episodes,
            cfg.seed_start,
            cfg.n_workers,
            settings,
            on_seed,
        )
    lengths = np.diff(buffer.episode_ends, prepend=0)
    console.print(
        f"{cfg.output}: {buffer.n_episodes} episodes, {lengths.sum():,} rows, "
        f"{lengths.min()} to {lengths.max()} per episode, mean {lengths.mean():.1f}"
    )
