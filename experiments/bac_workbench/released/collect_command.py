"""Collects episodes of a policy as a data set, with or without one of the released project's caching modes.

    python scripts/collect_lerobot_data.py --checkpoint CHECKPOINT --output_dir datas/lerobot/kitchen \\
      --num_episodes 100 --device cuda:0 \\
      --use_bac --cache_mode optimal --optimal_steps_dir assets/kitchen/optimal_steps/cosine --metric cosine \\
      --num_caches 5 --num_bu_blocks 3

The layout is the released one; --format lerobot writes a LeRobotDataset v3.0. An interrupted collection goes on where
it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bac_workbench.console import readable_errors
from bac_workbench.released.cache_flags import READ_BY, add_cache_flags, cache_overrides, check_flags
from bac_workbench.released.eval_command import stored_steps
from bac_workbench.released.options import Flags, assigned, name_command, one_of, settings_from, whole
from bac_workbench.settings.collection import FORMATS
from diffusion_policy.common.config import ConfigError

PROGRAM = "collect_lerobot_data.py"
EPISODES, MODE, BUDGET = 50, "threshold", 5  # the released defaults; of the mode and budget with --use_bac


def flags() -> Flags:
    parser = Flags(PROGRAM, __doc__ or "")
    parser.add_argument("-c", "--checkpoint", required=True, help="a folder of this project or an original .ckpt")
    parser.add_argument("-o", "--output_dir", required=True, help="where the data set goes")
    parser.add_argument("-d", "--device", default="auto", help="auto, cpu, cuda or cuda:<index> (default: auto)")
    parser.add_argument(
        "--num_episodes",
        type=whole(1, "number of episodes"),
        default=EPISODES,
        help=f"episodes in the data set (default: {EPISODES})",
    )
    parser.add_argument("--use_bac", action="store_true", help="reuse block outputs, as --cache_mode says")
    mode = f"with --use_bac: original, threshold or optimal (default: {MODE})"
    add_cache_flags(parser, mode, "assets/kitchen/optimal_steps/cosine", BUDGET)
    parser.add_argument(
        "--format", type=one_of(FORMATS), default="original", help="original or lerobot (default: original)"
    )
    parser.add_argument("--success_only", action="store_true", help="leave out episodes that do not succeed")
    parser.add_argument("--task", help="where neither folder nor checkpoint says it, such as can_ph")
    parser.settings_of("collect")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    with readable_errors():
        collect(flags().read(sys.argv[1:] if arguments is None else arguments))
    return 0


def mode_of(given: argparse.Namespace) -> str | None:
    """The mode; None: settings of this project choose the cache.

    Raises:
        ConfigError: flags that contradict each other, or that nothing would read.
    """
    if not given.use_bac:
        unread = [name for name in ("cache_mode", *READ_BY) if getattr(given, name) not in (None, False)]
        if unread:
            raise ConfigError(f"--{unread[0]} is read with --use_bac only: add that, or leave it out")
    elif given.cache_mode is None and not any(text.startswith(("cache=", "cache.")) for text in given.settings):
        given = argparse.Namespace(**{**vars(given), "cache_mode": MODE})
    return check_flags(given)


def overrides_of(given: argparse.Namespace, mode: str | None) -> list[str]:
    """What `bac collect` is told for these flags; with `optimal` it makes the same kind of schedule by itself."""
    from bac_workbench.released.names import task_of_checkpoint

    task = task_of_checkpoint(Path(given.checkpoint), given.task)
    overrides = [
        f"task={task.choice}",
        assigned("checkpoint", given.checkpoint),
        f"device={given.device}",
        assigned("output_dir", given.output_dir),
        f"n_episodes={given.num_episodes}",
        f"format={given.format}",
    ]
    if given.success_only:
        overrides.append("success_only=true")
    overrides += cache_overrides(given, mode, BUDGET)
    return [*overrides, *given.settings]


def collect(given: argparse.Namespace) -> None:
    from bac_workbench.commands.collect import collect_experiment
    from bac_workbench.setup.experiment import load_experiment

    mode = mode_of(given)
    overrides = overrides_of(given, mode)
    experiment = load_experiment(settings_from("collect", overrides))
    if mode == "optimal":
        with_budget = argparse.Namespace(**{**vars(given), "num_caches": given.num_caches or BUDGET})
        experiment = experiment.with_cache(stored_steps(with_budget, experiment))
    collect_experiment(experiment)
    name_command("collect", overrides)
