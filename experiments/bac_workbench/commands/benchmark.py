"""Time every method in every runtime in one interleaved run: bac benchmark task=pusht_lowdim device=cpu batch=1"""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from bac_workbench.settings import check, launch


def main() -> None:
    launch(time_methods, "benchmark", __doc__)


def time_methods(cfg: DictConfig) -> None:
    import torch

    from bac_workbench.benchmark.report import benchmark_table, plot_benchmark, trace_summary
    from bac_workbench.benchmark.run import benchmark_settings, check_folder, combinations, run_benchmark
    from bac_workbench.console import console, progress_bar
    from bac_workbench.provenance import hardware
    from bac_workbench.setup.experiment import load_experiment
    from bac_workbench.tracking.identity import Identity, hardware_tag
    from bac_workbench.tracking.run import Tracker
    from bac_workbench.tracking.tables import benchmark_summary, row_table
    from diffusion_policy.common.files import atomic_path, write_json
    from diffusion_policy.common.lock import locked

    settings = check(cfg, "benchmark")
    experiment = load_experiment(settings, needs_simulator=False)  # unless a profile has to be measured
    console.print(
        f"task {settings.task.name}, {experiment.loaded}\n"
        f"device {experiment.device}, {torch.get_num_threads()} threads, "
        f"plain policy: full, {experiment.own_sampler_name}, all tokens, reference\n"
        f"denoising {experiment.tokens}"
    )
    folder = Path(settings.output_dir)
    check_folder(folder, benchmark_settings(experiment), settings.overwrite)
    calls = len(settings.batches) * combinations(experiment) * (settings.n_chunks + settings.warmup)
    sizes = [f"batch {batch}" for batch in settings.batches]
    tags = [*settings.runtimes, *sizes, hardware_tag(hardware(experiment.device))]
    identity = Identity.of(settings.task.name, "benchmark", f"benchmark {', '.join(sizes)}", tags)
    with (
        locked(folder, f"benchmark of {settings.task.name}"),
        Tracker(settings.wandb, identity, experiment.to_dict(), console.print) as run,
    ):
        run.start()
        with progress_bar() as bar:
            job = bar.add_task("timing", total=calls)
            result = run_benchmark(experiment, bar.console.print, lambda: bar.advance(job))
        rows_path = folder / "benchmark.json"
        write_json(rows_path, result["rows"])
        write_json(folder / "benchmark_info.json", {key: value for key, value in result.items() if key != "rows"})
        plot_benchmark(result, folder / "benchmark.png")
        if settings.trace:
            with atomic_path(folder / "benchmark_trace.txt") as path:
                path.write_text(trace_summary(experiment))
        run.summarise(benchmark_summary(result["rows"]))
        run.log_media(
            lambda wandb: {
                "benchmark": row_table(wandb, result["rows"]),
                "picture": wandb.Image(str(folder / "benchmark.png")),
            }
        )
    for table in benchmark_table(result):
        console.print(table)
    console.print(json.dumps(result["floors"]))
    console.print(f"rows: {rows_path}, picture: {folder / 'benchmark.png'}")
