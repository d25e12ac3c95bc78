"""Time every method in every runtime in one interleaved run: python scripts/benchmark.py task=pusht_lowdim device=cpu batch=1"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "experiments")]

from bac_workbench.benchmark.report import benchmark_table, plot_benchmark, trace_summary  # noqa: E402
from bac_workbench.benchmark.run import benchmark_settings, check_folder, combinations, run_benchmark  # noqa: E402
from bac_workbench.console import console, progress_bar, readable_errors  # noqa: E402
from bac_workbench.settings import check, launch  # noqa: E402
from bac_workbench.setup.experiment import load_experiment  # noqa: E402
from diffusion_policy.common.config import register_resolvers  # noqa: E402
from diffusion_policy.common.files import atomic_path, write_json  # noqa: E402
from diffusion_policy.common.lock import locked  # noqa: E402

register_resolvers()


@hydra.main(version_base="1.3", config_path="../config", config_name="benchmark")
def main(cfg: DictConfig) -> None:
    with readable_errors():
        settings = check(cfg, "benchmark")
        experiment = load_experiment(settings, needs_simulator=False)  # unless a profile has to be measured
        console.print(
            f"task {settings.task.name}, {experiment.loaded}\n"
            f"device {experiment.device}, {torch.get_num_threads()} threads, "
            f"plain policy: full, {experiment.own_sampler_name}, reference"
        )
        folder = Path(settings.output_dir)
        check_folder(folder, benchmark_settings(experiment), settings.overwrite)
        calls = len(settings.batches) * combinations(experiment) * (settings.n_chunks + settings.warmup)
        with locked(folder, f"benchmark of {settings.task.name}"):
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
        for table in benchmark_table(result):
            console.print(table)
        console.print(json.dumps(result["floors"]))
        console.print(f"rows: {rows_path}, picture: {folder / 'benchmark.png'}")


if __name__ == "__main__":
    launch(main, "benchmark", __doc__)
