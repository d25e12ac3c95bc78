"""The main job on the bundled Push-T policy: every way to be faster, one table. Takes about two minutes on two cores.

usage: bac demo   (it has no settings; bac eval has)
example of what it runs: bac eval task=pusht_lowdim cache=sacs eval.n_test=10 eval.n_envs=10 device=cpu
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from bac_workbench.console import EpisodeProgress, console, progress_bar, readable_errors, table
from bac_workbench.locations import CONFIG
from bac_workbench.settings import read_positional, wants_help

if TYPE_CHECKING:
    from bac_workbench.setup.experiment import Experiment

#: method -> how the table names it
METHODS = {
    "full": "full policy",
    "full@ddim16": "DDIM-16, what people do today",
    "uniform_s10": "Uniform caching",
    "bac_s10": "BAC as published",
    "sacs_s10": "S-ACS, at BAC's FLOPs",
    "full@ancestral5": "ancestral-5",
}
TUNED = "tuned"
EPISODES = 10  # of the test seeds: enough to see it work, too few to rank methods (the README has 200)
COMMON = ["task=pusht_lowdim", "device=cpu"]


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        read_positional(sys.argv[1:], "demo", ())
        demonstrate()


def demonstrate() -> None:
    import torch

    from bac_workbench.benchmark.run import run_benchmark
    from bac_workbench.evaluation.evaluate import evaluate
    from bac_workbench.evaluation.folder import open_output_dir
    from bac_workbench.settings.methods import parse_method
    from diffusion_policy.common.config import register_resolvers

    register_resolvers()
    started, runtime = time.monotonic(), fastest_runtime()
    rolled = [f"eval.n_test={EPISODES}", f"eval.n_envs={EPISODES}", "benchmark.n_chunks=0", "eval.n_videos=1"]
    experiment = loaded("eval", [*COMMON, *rolled, f"runtime={runtime}"], n_test=EPISODES, n_train=0)
    methods = dict(METHODS)
    if (certificate := certificate_of(experiment)) is not None:
        methods[TUNED] = TUNED
    timed = ["batch=1", "n_chunks=8", f"runtimes=[{runtime}]", f"methods=[{','.join(methods)}]"]
    console.print(f"Push-T, {experiment.loaded}, {experiment.sampler_line}")
    console.print(f"{experiment.tokens}")
    console.print(f"{EPISODES} test episodes each, {torch.get_num_threads()} threads, runtime {runtime}")
    evaluations = {}
    with progress_bar() as bar:
        episodes = EpisodeProgress(bar, EPISODES * len(methods))
        for text in methods:
            method = parse_method(text)
            variant = experiment.with_sampler(method.sampler).with_cache(method.cache)
            output_dir = open_output_dir(variant, f"results/pusht_lowdim/demo/{text}")
            episodes.start(text)
            evaluations[text] = evaluate(variant, output_dir, bar.console.print, episodes)
        bar.console.print("timing all of them in one interleaved run, batch 1")
        rows = run_benchmark(loaded("benchmark", [*COMMON, *timed]), lambda text: None)["rows"]
    console.print(summary(methods, {text: item.results for text, item in evaluations.items()}, rows, runtime))
    if certificate is not None:
        console.print(f"tuned: {certificate}")
    fastest, last = next(reversed(evaluations.items()))
    videos = sorted((last.output_dir / "media").glob("*.mp4"))
    schedule = evaluations["bac_s10"].output_dir / "schedule.png"
    console.print(f"schedule of BAC: {schedule}\nvideo of {fastest}: {videos[0] if videos else 'none'}")
    console.print(f"results: results/pusht_lowdim/demo  ({time.monotonic() - started:.0f} s)")
    console.print("next: bac tune task=pusht_lowdim   (the fastest setting that is proven not worse)")


def loaded(command: str, overrides: list[str], **seeds: int) -> Experiment:
    """The experiment that a command's settings describe."""
    from hydra import compose, initialize_config_dir

    from bac_workbench.settings import check
    from bac_workbench.setup.experiment import load_experiment

    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        settings = check(compose(command, overrides), command, overrides)
    return load_experiment(settings, needs_simulator=bool(seeds), **seeds)


def fastest_runtime() -> str:
    """compiled where a C++ compiler is installed, else planned; said if not."""
    from bac.native.build import CompilerMissing, find_compiler

    try:
        find_compiler()
    except CompilerMissing as error:
        console.print(f"the compiled runtime is left out of this demo: {error}")
        return "planned"
    return "compiled"


def summary(
    methods: dict[str, str], results: dict[str, dict[str, Any]], rows: list[dict[str, Any]], runtime: str
) -> Any:
    """One row per method; the speed-up against the plain policy, split into its factors."""
    times = {(row["method"], row["sampler"]): row for row in rows if row["runtime"] == runtime}
    plain = next(row for row in rows if row["runtime"] == "reference")
    lines = [["plain policy", "as full", f"{plain['gflop_per_chunk']:.1f}", f"{plain['ms_p50']:.0f}", "1x", *"---"]]
    for text, name in methods.items():
        own = results[text]
        low, high = own["mean_score_interval_95"]
        row = times[own["method"], own["sampler"]]
        levers = row["levers"]
        shown = f"{name} ({own['sampler']})" if text == TUNED else name
        lines.append(
            [
                shown,
                f"{own['mean_score']:.3f} [{low:.3f}, {high:.3f}]",
                f"{row['gflop_per_chunk']:.2f}",
                f"{row['ms_p50']:.1f}",
                f"{row['speedup']:.0f}x",
                *(f"{levers[key]:.1f}x" for key in ("runtime", "tokens", "steps_and_schedule")),
            ]
        )
    columns = ["method", "mean score [95 %]", "GFLOP/chunk", "ms/chunk", "faster", "runtime", "tokens", "steps, cache"]
    return table(
        f"Push-T, {EPISODES} episodes; batch 1, runtime {runtime}; faster: than the plain policy, module by module, "
        "and the factors that make it up",
        columns,
        lines,
    )


def certificate_of(experiment: Experiment) -> str | None:
    """What was proven of the tuned setting, and where it is written; None if nothing was yet."""
    from bac_workbench.setup.tuned import find_tuned
    from diffusion_policy.common.config import ConfigError

    try:
        tuned, path = find_tuned(experiment)
    except ConfigError:  # no certificate; a damaged one is another error
        return None
    return f"{tuned} ({path})"
