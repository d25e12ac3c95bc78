"""The main job on the bundled Push-T policy: full, Uniform and BAC, one table. Takes about three minutes on two cores.

usage: bac demo   (it has no settings; bac eval has)
example of what it runs: bac eval task=pusht_lowdim cache=bac eval.n_test=10 eval.n_envs=10 device=cpu
"""

from __future__ import annotations

import sys
import time

from bac_workbench.console import EpisodeProgress, console, progress_bar, readable_errors, table
from bac_workbench.locations import CONFIG
from bac_workbench.settings import read_positional, wants_help

CACHES = ("full", "uniform", "bac")
EPISODES = 10  # of the 50 test seeds: enough to see it work, too few to rank methods (the README has all 50)
OVERRIDES = [
    "task=pusht_lowdim",
    f"eval.n_test={EPISODES}",
    f"eval.n_envs={EPISODES}",
    "device=cpu",
    "benchmark.n_chunks=8",
]


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        read_positional(sys.argv[1:], "demo", ())
        demonstrate()


def demonstrate() -> None:
    import torch
    from hydra import compose, initialize_config_dir

    from bac_workbench.evaluation.evaluate import evaluate
    from bac_workbench.evaluation.folder import open_output_dir
    from bac_workbench.evaluation.report import levers_line, summary_table
    from bac_workbench.settings import check
    from bac_workbench.settings.methods import named_cache
    from bac_workbench.setup.experiment import load_experiment
    from diffusion_policy.common.config import register_resolvers

    register_resolvers()
    started = time.monotonic()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        settings = check(compose("eval", OVERRIDES), "eval", OVERRIDES)
    experiment = load_experiment(settings, n_test=EPISODES, n_train=0)
    console.print(f"Push-T, {experiment.loaded}, {experiment.sampler_line}")
    console.print(f"{EPISODES} test episodes each, {torch.get_num_threads()} threads, runtime {settings.runtime}")
    console.print(f"denoising {experiment.tokens}")
    evaluations = []
    with progress_bar() as bar:
        episodes = EpisodeProgress(bar, EPISODES * len(CACHES))
        for name in CACHES:
            variant = experiment.with_cache(named_cache(name))
            output_dir = open_output_dir(variant, f"results/pusht_lowdim/demo/{name}")
            episodes.start(name)
            evaluations.append(evaluate(variant, output_dir, bar.console.print, episodes))
        compiled = compiled_latency(variant, bar.console.print)
    console.print(summary_table([e.results for e in evaluations], [e.benchmark for e in evaluations]))
    if compiled is not None:
        columns = ["method", "ms/chunk p50 / p95", "actions/s", "speedup", "same runtime"]
        console.print(
            table(
                "the same actions from the compiled runtime (runtime=compiled), batch 1",
                columns,
                [
                    [
                        compiled["method"]["name"],
                        f"{compiled['method']['ms_p50']:.1f} / {compiled['method']['ms_p95']:.1f}",
                        f"{compiled['method']['action_hz']:.0f}",
                        f"{compiled['speedup']:.2f}x",
                        f"{compiled['speedup_same_runtime']:.2f}x",
                    ],
                ],
            )
        )
        console.print(levers_line(compiled))
    videos = sorted((evaluations[-1].output_dir / "media").glob("*.mp4"))
    console.print(f"schedule: {evaluations[-1].output_dir / 'schedule.png'}\nvideo: {videos[0] if videos else 'none'}")
    console.print(f"results: results/pusht_lowdim/demo  ({time.monotonic() - started:.0f} s)")
    console.print("next: bac eval task=pusht_lowdim cache=bac runtime=compiled   (all 50 test seeds)")


def compiled_latency(experiment, say) -> dict | None:
    """BAC once more in the compiled runtime, where a C++ compiler is installed; said if not."""
    from bac.native.build import CompilerMissing, find_compiler
    from bac_workbench.caching.schedules import schedule_for
    from bac_workbench.evaluation.evaluate import measure_latency

    try:
        find_compiler()
    except CompilerMissing as error:
        say(f"the compiled runtime is left out of this demo: {error}")
        return None
    say(f"timing {experiment.cache.label} in the compiled runtime")
    return measure_latency(experiment, schedule_for(experiment, lambda text: None), "compiled")
