"""Evaluates a policy with one of the released project's caching modes: success rate, FLOPs, speedup.

    python scripts/eval_fast_diffusion_policy.py -c CHECKPOINT -o results/can_ph/bac --device cuda:0 \\
      --cache_mode optimal --optimal_steps_dir assets/can_ph/optimal_steps/cosine --metric cosine \\
      --num_caches 5 --num_bu_blocks 3 --skip_video

original: no caching; threshold: all blocks update every --cache_threshold steps; optimal: the schedules of
--optimal_steps_dir, of which the Bubbling Union repairs --num_bu_blocks. The released files go to the folder named
with -o, this project's to evaluation/ in it; an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bac_workbench.console import console, readable_errors
from bac_workbench.released.cache_flags import THRESHOLD, add_cache_flags, cache_overrides, check_flags
from bac_workbench.released.options import Flags, assigned, name_command, settings_from
from diffusion_policy.common.config import ConfigError

if TYPE_CHECKING:
    from bac.profile_matrices import Profile
    from bac.schedule import Schedule
    from bac_workbench.setup.experiment import Experiment

PROGRAM = "eval_fast_diffusion_policy.py"
EVALUATION = "evaluation"  # this project's files, in the folder of the released ones
BUDGET = 30  # the released default


@dataclass(frozen=True)
class StoredSteps:
    """A schedule from a folder of the released layout, as the cache of an experiment."""

    label: str
    stored: Schedule
    method: ClassVar[str] = "optimal"
    needs_profile: ClassVar[bool] = False

    def check(self, blocks: Sequence[str], steps: int) -> None:
        self.stored.check_fits(blocks, steps)

    def schedule(self, blocks: Sequence[str], steps: int, profile: Profile | None = None) -> Schedule:
        return self.stored


def flags() -> Flags:
    parser = Flags(PROGRAM, __doc__ or "")
    parser.add_argument("-c", "--checkpoint", required=True, help="a folder of this project or an original .ckpt")
    parser.add_argument("-o", "--output_dir", required=True, help="where results go")
    parser.add_argument("-d", "--device", default="auto", help="auto, cpu, cuda or cuda:<index> (default: auto)")
    mode = "original, threshold or optimal (default: original, or what cache=... says)"
    add_cache_flags(parser, mode, "assets/can_ph/optimal_steps/cosine", BUDGET)
    parser.add_argument("--skip_video", action="store_true", help="film no episode")
    parser.add_argument("--task", help="where neither folder nor checkpoint says it, such as can_ph")
    parser.settings_of("eval")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    with readable_errors():
        evaluate(flags().read(sys.argv[1:] if arguments is None else arguments))
    return 0


def overrides_of(given: argparse.Namespace, mode: str | None) -> list[str]:
    """What `bac eval` is told for these flags; with `optimal` it makes the same kind of schedule by itself."""
    from bac_workbench.released.names import task_of_checkpoint

    task = task_of_checkpoint(Path(given.checkpoint), given.task)
    overrides = [
        f"task={task.choice}",
        assigned("checkpoint", given.checkpoint),
        f"device={given.device}",
        assigned("output_dir", Path(given.output_dir) / EVALUATION),
        *cache_overrides(given, mode, BUDGET),
    ]
    if given.skip_video:
        overrides.append("eval.n_videos=0")
    return [*overrides, *given.settings]


def evaluate(given: argparse.Namespace) -> None:
    from bac_workbench.commands.eval import evaluate_experiment
    from bac_workbench.released.result_files import check_output, write_results
    from bac_workbench.setup.experiment import load_experiment

    mode = check_flags(given)
    overrides, output = overrides_of(given, mode), Path(given.output_dir)
    settings = settings_from("eval", overrides)
    check_output(output)
    if settings.eval.n_test == 0:
        raise ConfigError("eval.n_test=0: mean_score is of test episodes, use at least 1")
    experiment = load_experiment(settings, n_test=settings.eval.n_test, n_train=settings.eval.n_train)
    if mode == "optimal":
        experiment = experiment.with_cache(stored_steps(given, experiment))
    evaluation = evaluate_experiment(experiment)
    described = {"mode": mode} if mode else {"mode": "cache", "cache": experiment.cache.label}
    if mode == "threshold":
        described["cache_threshold"] = given.cache_threshold or THRESHOLD
    if mode == "optimal":
        described |= {"optimal_steps_dir": given.optimal_steps_dir, "metric": given.metric or "cosine"}
        described |= {"num_caches": given.num_caches or BUDGET, "num_bu_blocks": given.num_bu_blocks or 0}
    write_results(output, evaluation, experiment, described)
    console.print(f"released files: {output / 'eval_results.json'}, benchmark_results.json, fast_eval_log.json")
    name_command("eval", overrides)


def stored_steps(given: argparse.Namespace, experiment: Experiment) -> StoredSteps:
    """The schedule that the flags name.

    Raises:
        ConfigError: it is not there, impossible, or of another model.
    """
    from bac.bua import bubbling_union
    from bac.provenance import Provenance
    from bac.schedule import Schedule
    from bac_workbench.released.steps_folder import read_description, read_errors, read_steps, root_of
    from bac_workbench.settings.methods import named_cache

    folder, budget, top_k = Path(given.optimal_steps_dir), given.num_caches or BUDGET, given.num_bu_blocks or 0
    blocks, steps, metric_name = experiment.blocks, experiment.steps, given.metric or "cosine"
    if top_k > len(blocks):
        raise ConfigError(
            f"--num_bu_blocks {top_k} is not possible: use 0 to {len(blocks)}, the model's number of blocks"
        )
    update_steps = read_steps(folder, metric_name, budget, blocks, steps)
    root = root_of(folder)
    origin = check_origin(folder, read_description(root), experiment, given.other_checkpoint)
    provenance = Provenance(
        "blockwise_acs",
        budget=budget,
        metric=metric_name,
        objective="cached_to_skipped",
        extras={"folder": str(folder)},
    )
    schedule = Schedule.from_steps(update_steps, steps, provenance)
    method = "bac" if top_k else "blockwise_acs"
    if top_k:
        schedule = bubbling_union(schedule, read_errors(root, blocks), top_k)
    cache = named_cache(method, budget=budget, metric=metric_name, **({"top_k": top_k} if top_k else {}))
    console.print(f"schedule: {folder}, {origin}")
    return StoredSteps(cache.label, schedule)


def check_origin(folder: Path, description: dict | None, experiment: Experiment, other: bool) -> str:
    """Whose schedules these are, in words.

    Raises:
        ConfigError: another checkpoint's, which was not asked for.
    """
    if description is None:
        return "which does not say of which checkpoint it is"
    made_for, own = str(description.get("checkpoint_hash")), experiment.loaded.hash
    if made_for == own:
        return "made for this checkpoint"
    if other:
        return f"made for another checkpoint ({made_for[:12]}, this one is {own[:12]})"
    raise ConfigError(
        f"--optimal_steps_dir {folder} was made for another checkpoint ({made_for[:12]}, this one is {own[:12]}): make "
        "this one's with get_optimal_cache_update_steps.py -o <another folder>, or add --other_checkpoint"
    )


if __name__ == "__main__":
    sys.exit(main())
