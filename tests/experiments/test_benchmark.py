"""The benchmark on a tiny policy: rows, keys, equality of runtimes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from bac_workbench.benchmark.report import benchmark_table, plot_benchmark, trace_summary
from bac_workbench.benchmark.run import benchmark_settings, check_folder, combinations, run_benchmark
from bac_workbench.settings import check
from bac_workbench.settings.methods import parse_method
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.timing.latency import Latency, speed_ratio
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.common.files import write_json

pytest.importorskip("pymunk")
CONFIG = str(Path(__file__).resolve().parents[2] / "config")
SMALL = ["runtimes=[planned]", "methods=[uniform_s5]", "batch=1"]
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
    "tokens",
    "levers",
}


@pytest.fixture
def make_settings(checkpoint, tmp_path):
    """make_settings('methods=[full]', ...) -> settings of a benchmark of the tiny policy."""

    def make(*overrides):
        register_resolvers()
        usual = [
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
        ]
        with initialize_config_dir(CONFIG, version_base="1.3"):
            return check(compose("benchmark", [*usual, *overrides]), "benchmark", [*overrides])

    return make


@pytest.fixture
def experiment(make_settings):
    return load_experiment(make_settings(), needs_simulator=False)


def test_rows_have_stable_keys_and_runtimes_agree(experiment, tmp_path):
    result = run_benchmark(experiment, say=lambda text: None)
    assert len(result["rows"]) == 5 * 3 * 2
    for row in result["rows"]:
        assert KEYS <= set(row)
        assert row["max_action_diff"] < 1e-5
        assert set(row["breakdown_ms"]) == {"observation_encoder", "conditioning", "denoiser", "scheduler"}
        assert row["tokens"] == (16 if row["method"] == "full_all_tokens" else 9)
        assert math.prod(row["levers"].values()) == pytest.approx(row["speedup"], rel=2e-3)
    full = [
        row
        for row in result["rows"]
        if (row["method"], row["sampler"], row["runtime"]) == ("full_all_tokens", "ddpm100", "reference")
    ]
    assert {row["speedup"] for row in full} == {row["speedup_same_runtime"] for row in full} == {1.0}
    assert {
        row["speedup_same_runtime"]
        for row in result["rows"]
        if (row["method"], row["sampler"]) in {("full", "ddpm100"), ("full_all_tokens", "ddpm100")}
    } == {1.0}
    assert result["floors"]["gflops"] > 0.1
    assert len(list(benchmark_table(result))) == 2
    plot_benchmark(result, tmp_path / "benchmark.png")
    assert (tmp_path / "benchmark.png").stat().st_size > 5000
    assert "aten::" in trace_summary(experiment)


def test_the_plain_policy_is_measured_whether_or_not_it_is_asked_for(make_settings):
    experiment = load_experiment(make_settings(*SMALL), needs_simulator=False)
    rows = run_benchmark(experiment, say=lambda text: None)["rows"]
    assert [(row["method"], row["runtime"]) for row in rows] == [
        ("full_all_tokens", "reference"),
        ("full_all_tokens", "planned"),
        ("full", "planned"),
        ("uniform_s5", "planned"),
    ]
    assert combinations(experiment) == 4
    by_name = {(row["method"], row["runtime"]): row for row in rows}
    uniform = by_name["uniform_s5", "planned"]
    assert uniform["speedup"] > uniform["speedup_same_runtime"] > 1  # the runtime's own gain is in the first only


def test_without_executed_tokens_the_full_policy_is_the_plain_one(make_settings):
    experiment = load_experiment(make_settings(*SMALL, "horizon=full"), needs_simulator=False)
    rows = run_benchmark(experiment, say=lambda text: None)["rows"]
    assert [(row["method"], row["runtime"], row["tokens"]) for row in rows] == [
        ("full", "reference", 16),
        ("full", "planned", 16),
        ("uniform_s5", "planned", 16),
    ]
    assert combinations(experiment) == 3
    assert {row["levers"]["tokens"] for row in rows} == {1.0}
    assert rows[0]["gflop_per_chunk"] == rows[1]["gflop_per_chunk"]


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
    folder, own = tmp_path / "results", benchmark_settings(experiment)
    check_folder(folder, own, overwrite=False)
    stored = {**own, "methods": ["full"]}
    write_json(folder / "benchmark_info.json", {"provenance": stored})
    with pytest.raises(ConfigError, match="holds another benchmark.*overwrite=true"):
        check_folder(folder, own, overwrite=False)
    write_json(folder / "benchmark_info.json", {"provenance": own})
    check_folder(folder, own, overwrite=False)
    (folder / "benchmark_info.json").write_text("[1, 2")
    with pytest.raises(ConfigError, match="benchmark_info.json is damaged"):
        check_folder(folder, own, overwrite=False)


def test_a_task_without_a_simulator_is_timed_on_random_observations(make_settings):
    settings = make_settings(*SMALL)
    settings = settings.replace(task=settings.task.replace(environment=None))
    rows = run_benchmark(load_experiment(settings, needs_simulator=False), say=lambda text: None)["rows"]
    assert [row["method"] for row in rows] == ["full_all_tokens", "full_all_tokens", "full", "uniform_s5"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("methods=[bac_s999]", "use 1 to 100"),
        ("methods=[bac_s99@ddim10]", "use 1 to 10"),
        ("methods=[full@ddim101]", "use 1 to 100"),
        ("runtimes=[turbo]", "planned"),
        ("runtimes=[]", "planned"),
        ("+sampler.type=ddim", "in its methods, such as"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_measured(make_settings, wrong, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        run_benchmark(load_experiment(make_settings(wrong), needs_simulator=False), say=lambda text: None)
    assert not (tmp_path / "assets").exists()
