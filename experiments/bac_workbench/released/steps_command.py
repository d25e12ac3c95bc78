"""Schedules of a policy, in the folders of the released project and in this one's.

    python diffusion_policy/activation_utils/get_optimal_cache_update_steps.py -c CHECKPOINT -o assets/can_ph \\
      -d cuda:0 --num_caches 5,8,10,20

The policy is profiled once, unless a profile of it is stored, and all metrics and budgets come from that profile. The
released layout goes to the folder named with -o, profile and schedules of `bac profile` to the folder of the task
beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bac.similarity import METRICS
from bac_workbench.console import console, readable_errors
from bac_workbench.released.options import Flags, assigned, metric, name_command, settings_from, several, whole
from diffusion_policy.common.config import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from bac.schedule import Schedule
    from bac_workbench.setup.experiment import Experiment

PROGRAM = "get_optimal_cache_update_steps.py"
NOISE_SEED = 0


def flags() -> Flags:
    parser = Flags(PROGRAM, __doc__ or "")
    parser.add_argument("-c", "--checkpoint", required=True, help="a folder of this project or an original .ckpt")
    parser.add_argument("-o", "--output_dir", required=True, help="folder of the task, such as assets/can_ph")
    parser.add_argument("-d", "--device", default="auto", help="auto, cpu, cuda or cuda:<index> (default: auto)")
    parser.add_argument(
        "--num_caches",
        type=several(whole(1, "number of updates")),
        default=[5, 8, 10, 20],
        help="updates of each block, comma-separated (default: 5,8,10,20)",
    )
    parser.add_argument(
        "--metrics",
        type=several(metric),
        default=["cosine", "l1", "mse"],
        help=f"of {', '.join(METRICS)} (default: cosine,l1,mse)",
    )
    parser.add_argument(
        "--demo_idx",
        type=whole(0, "episode"),
        help="profile on the first observation of this train episode alone, as the released code does (default: on "
        "many observations of several episodes)",
    )
    parser.add_argument("--force_recompute", action="store_true", help="measure again and replace what is there")
    parser.add_argument("--task", help="where neither folder nor checkpoint says it, such as can_ph")
    parser.add_argument("--pickle", action="store_true", help="also write the .pkl files that the released code reads")
    parser.settings_of("profile_blocks")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    with readable_errors():
        write_steps(flags().read(sys.argv[1:] if arguments is None else arguments))
    return 0


def overrides_of(given: argparse.Namespace) -> list[str]:
    """What `bac profile` is told for these flags."""
    from bac_workbench.released.names import task_of_checkpoint

    task = task_of_checkpoint(Path(given.checkpoint), given.task)
    budgets = ",".join(f"bac_s{budget}" for budget in given.num_caches)
    overrides = [
        f"task={task.choice}",
        assigned("checkpoint", given.checkpoint),
        f"device={given.device}",
        f"schedules=[{budgets}]",
    ]
    if Path(given.output_dir).parent != Path("assets"):
        overrides.append(assigned("assets_dir", Path(given.output_dir).parent))
    if given.demo_idx is not None:
        overrides += [f"profile.seed_start={given.demo_idx}", "profile.n_episodes=1", "profile.n_observations=1"]
        overrides += [f"profile.noise_seeds=[{NOISE_SEED}]"]
    if given.force_recompute:
        overrides.append("overwrite=true")
    return [*overrides, *given.settings]


def write_steps(given: argparse.Namespace) -> None:
    from bac_workbench.profiling.profiles import profile_for, replace_profile
    from bac_workbench.profiling.request import THOROUGH
    from bac_workbench.released.steps_folder import STEPS, describe, write_folder
    from bac_workbench.setup.experiment import load_experiment
    from diffusion_policy.common.lock import locked

    overrides, root = overrides_of(given), Path(given.output_dir)
    settings = settings_from("profile_blocks", overrides)
    experiment = load_experiment(settings)
    console.print(f"task {settings.task.name}, {experiment.loaded}, {experiment.sampler_line}")
    check_budgets(experiment, given.num_caches)
    make = replace_profile if settings.overwrite else profile_for
    profile, folder = make(experiment, console.print, THOROUGH)
    seed = given.demo_idx or 0
    description = describe(profile.info, seed, NOISE_SEED)
    with locked(root, f"schedules of {settings.task.name}"):
        check_root(root, description, settings.overwrite)
        schedules = schedules_for(experiment, given.metrics, given.num_caches)
        write_folder(root, profile, description, activations(experiment, seed), schedules, given.pickle)
    for metric_name in given.metrics:
        console.print(f"update steps, {metric_name}: {root / STEPS / metric_name}")
    console.print(f"profile and schedules of bac profile: {folder}")
    name_command("profile_blocks", overrides)


def check_budgets(experiment: Experiment, budgets: Sequence[int]) -> None:
    if max(budgets) > experiment.steps:
        raise ConfigError(
            f"--num_caches {max(budgets)} is not possible: use 1 to {experiment.steps}, the sampler's number of steps"
        )


def check_root(root: Path, description: dict[str, Any], replace: bool) -> None:
    """Whether the folder is free, or of the same profile.

    Raises:
        ConfigError: it is not.
    """
    from bac_workbench.released.steps_folder import ORIGINAL, STEPS, read_description

    stored = read_description(root)
    if stored is None and not replace and (holds := [name for name in (ORIGINAL, STEPS) if any_file(root / name)]):
        raise ConfigError(
            f"{root / holds[0]} is there, and nothing says which checkpoint it is of: choose another -o, or replace it "
            "with --force_recompute"
        )
    differ = [name for name, value in description.items() if stored is not None and stored.get(name) != value]
    if differ and not replace:
        raise ConfigError(
            f"{root} holds the schedules of another profile ({', '.join(differ)}): choose another -o, or replace it "
            "with --force_recompute"
        )


def any_file(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def schedules_for(
    experiment: Experiment, metrics: Sequence[str], budgets: Sequence[int]
) -> dict[tuple[str, int], Schedule]:
    """Block-wise schedules, by metric and budget; they and the repaired ones are also written beside the profile."""
    from bac_workbench.caching.schedules import schedule_for
    from bac_workbench.profiling.request import THOROUGH
    from bac_workbench.settings.methods import named_cache

    def quiet(line: str) -> None:
        """The profile has been named already."""

    schedules = {}
    for metric_name in metrics:
        for budget in budgets:
            for method in ("bac", "blockwise_acs"):
                cache = named_cache(method, budget=budget, metric=metric_name)
                schedule = schedule_for(experiment.with_cache(cache), quiet, THOROUGH)
            schedules[metric_name, budget] = schedule
    return schedules


def activations(experiment: Experiment, seed: int) -> dict[str, np.ndarray]:
    """Block -> float32 [K, 1, T, D]: its outputs on the first observation of an episode, at every denoising step."""
    import torch

    from bac.runtime.reference import ReferenceSampler
    from bac.schedule import Schedule
    from bac_workbench.setup.acting import as_tensors
    from diffusion_policy.env_runner.observation import apply

    outputs: dict[str, list[torch.Tensor]] = {block: [] for block in experiment.blocks}
    task, policy = experiment.task, experiment.policy
    with task.vector_env(1, None if task.environment.one_env_per_process else 0) as env:
        env.reset(0, seed)
        _, chunk = env.receive()
    inputs = policy.sampler_inputs(as_tensors(apply(lambda array: array[None], chunk.obs)))
    full = Schedule.full(experiment.blocks, experiment.steps)
    sampler = ReferenceSampler(
        experiment.sampler, full, observe=lambda step, block, feature: outputs[block].append(feature.float().cpu())
    )
    with torch.no_grad():
        sampler(inputs, [torch.Generator().manual_seed(NOISE_SEED)])
    return {block: torch.stack(features).numpy() for block, features in outputs.items()}


if __name__ == "__main__":
    sys.exit(main())
