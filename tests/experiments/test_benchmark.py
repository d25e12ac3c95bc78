"""The benchmark on a tiny policy: rows, keys, equality of runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from bac_workbench.benchmark.report import benchmark_table, plot_benchmark, trace_summary
from bac_workbench.benchmark.run import benchmark_settings, check_folder, combinations, run_benchmark
from bac_workbench.caching.methods import parse_method
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.timing.latency import Latency, speed_ratio
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.common.files import write_json

pytest.importorskip("pymunk")
CONFIG = str(Path(__file__).resolve().parents[2] / "config")
KEYS = {
    "method",
    "sampler",
    "runtime",
    "batch",
    "threads",
    "device",
    "ms_p50",
    "ms_p95",
    "chunks_per_s",
    "action_hz",
    "gflop_per_chunk",
    "speedup",
    "speedup_same_runtime",
    "max_action_diff",
}


@pytest.fixture
def experiment(checkpoint, tmp_path):
    register_resolvers()
    with initialize_config_dir(CONFIG, version_base="1.3"):
        cfg = compose(
            "benchmark",
            [
                "task=pusht_lowdim",
                f"checkpoint={checkpoint}",
                f"assets_dir={tmp_path}/assets",
                "device=cpu",
                "n_chunks=2",
                "warmup=1",
                "methods=[full,uniform_s5,full@ddim10,bac_s3@ddim10]",
                "batch=[1,3]",
                "profile.n_episodes=1",
                "profile.n_observations=2",
                "profile.noise_seeds=[0]",
                "task.environment.max_steps=24",
            ],
        )
    return load_experiment(cfg, needs_simulator=False)


def test_rows_have_stable_keys_and_runtimes_agree(experiment, tmp_path):
    result = run_benchmark(experiment, say=lambda text: None)
    assert len(result["rows"]) == 4 * 3 * 2
    for row in result["rows"]:
        assert KEYS <= set(row)
        assert row["max_action_diff"] < 1e-5
        assert set(row["breakdown_ms"]) == {"observation_encoder", "conditioning", "denoiser", "scheduler"}
    full = [
        row
        for row in result["rows"]
        if (row["method"], row["sampler"], row["runtime"]) == ("full", "ddpm100", "reference")
    ]
    assert {row["speedup"] for row in full} == {row["speedup_same_runtime"] for row in full} == {1.0}
    assert {
        row["speedup_same_runtime"] for row in result["rows"] if (row["method"], row["sampler"]) == ("full", "ddpm100")
    } == {1.0}
    assert result["floors"]["gflops"] > 0.1
    assert len(list(benchmark_table(result))) == 2
    plot_benchmark(result, tmp_path / "benchmark.png")
    assert (tmp_path / "benchmark.png").stat().st_size > 5000
    assert "aten::" in trace_summary(experiment)


def test_the_plain_policy_is_measured_whether_or_not_it_is_asked_for(experiment):
    experiment.cfg.runtimes, experiment.cfg.methods, experiment.cfg.batch = ["planned"], ["uniform_s5"], 1
    rows = run_benchmark(experiment, say=lambda text: None)["rows"]
    assert [(row["method"], row["runtime"]) for row in rows] == [
        ("full", "reference"),
        ("full", "planned"),
        ("uniform_s5", "planned"),
    ]
    assert combinations(experiment) == 3
    by_name = {(row["method"], row["runtime"]): row for row in rows}
    uniform = by_name["uniform_s5", "planned"]
    assert uniform["speedup"] > uniform["speedup_same_runtime"] > 1  # the runtime's own gain is in the first only


@pytest.mark.parametrize(
    "text, label, sampler",
    [
        ("full", "full", {}),
        ("bac_s7", "bac_s7", {}),
        ("full@checkpoint", "full", {}),
        ("uniform@ddim16", "uniform_s10", {"type": "ddim", "steps": 16}),
        ("blockwise_acs_s5@ddpm50", "blockwise_acs_s5", {"type": "ddpm", "steps": 50}),
    ],
)
def test_method_names(text, label, sampler):
    method = parse_method(text)
    assert (method.label, method.sampler) == (label, sampler)


@pytest.mark.parametrize("text", ["fastest", "bac_sx", "full@euler3", "", "full_s5", "full@", "full@ddim"])
def test_unknown_methods(text):
    with pytest.raises(ConfigError, match="not known|unknown sampler"):
        parse_method(text)


def test_speed_ratio_cancels_a_drifting_machine():
    slow = Latency((10.0, 100.0, 1000.0), (1.0, 1.0, 1.0), 1, 8)
    fast = Latency((5.0, 50.0, 500.0), (1.0, 1.0, 1.0), 1, 8)
    assert speed_ratio(slow, fast) == 2.0
    assert slow.p50 == 100.0 and fast.action_hz == pytest.approx(160.0)


def test_a_benchmark_of_something_else_is_not_replaced_unasked(experiment, tmp_path):
    folder = tmp_path / "results"
    check_folder(folder, experiment)
    stored = {**benchmark_settings(experiment), "methods": ["full"]}
    write_json(folder / "benchmark_info.json", {"provenance": stored})
    with pytest.raises(ConfigError, match="holds another benchmark.*overwrite=true"):
        check_folder(folder, experiment)
    write_json(folder / "benchmark_info.json", {"provenance": benchmark_settings(experiment)})
    check_folder(folder, experiment)
    (folder / "benchmark_info.json").write_text("[1, 2")
    with pytest.raises(ConfigError, match="benchmark_info.json is damaged"):
        check_folder(folder, experiment)


def test_a_task_without_a_simulator_is_timed_on_random_observations(experiment):
    experiment.cfg.task.environment = None
    experiment.cfg.methods, experiment.cfg.batch, experiment.cfg.runtimes = ["uniform_s5"], 1, ["planned"]
    rows = run_benchmark(load_experiment(experiment.cfg, needs_simulator=False), say=lambda text: None)["rows"]
    assert [row["method"] for row in rows] == ["full", "full", "uniform_s5"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"methods": ["bac_s999"]}, "use 1 to 100"),
        ({"methods": ["bac_s99@ddim10"]}, "use 1 to 10"),
        ({"methods": ["full@ddim101"]}, "use 1 to 100"),
        ({"runtimes": ["turbo"]}, "planned"),
        ({"runtimes": []}, "planned"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_measured(experiment, wrong, message, tmp_path):
    for key, value in wrong.items():
        experiment.cfg[key] = value
    with pytest.raises(ConfigError, match=message):
        run_benchmark(experiment, say=lambda text: None)
    assert not (tmp_path / "assets").exists()
