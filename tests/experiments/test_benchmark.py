"""The benchmark on a tiny policy: rows, keys, equality of runtimes."""
from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffusion_policy.common.config import ConfigError, register_resolvers
from experiments.benchmark import parse_method, run_benchmark
from experiments.benchmark_report import benchmark_table, plot_benchmark, trace_summary
from experiments.latency import Latency, speed_ratio
from experiments.setup import load_experiment

pytest.importorskip("pymunk")
CONFIG = str(Path(__file__).resolve().parents[2] / "config")
KEYS = {"method", "sampler", "runtime", "batch", "threads", "device", "ms_p50", "ms_p95", "chunks_per_s", "action_hz",
        "gflop_per_chunk", "speedup_vs_full_reference", "max_action_diff"}


@pytest.fixture
def experiment(checkpoint, tmp_path):
    register_resolvers()
    with initialize_config_dir(CONFIG, version_base="1.3"):
        cfg = compose("benchmark", [
            "task=pusht_lowdim", f"checkpoint={checkpoint}", f"assets_dir={tmp_path}/assets", "device=cpu", "n_chunks=2", "warmup=1",
            "methods=[full,uniform_s5,full@ddim10,bac_s3@ddim10]", "batch=[1,3]", "profile.n_episodes=1", "profile.n_observations=2",
            "profile.noise_seeds=[0]", "task.adapter.max_steps=24",
        ])
    OmegaConf.set_struct(cfg, False)
    cfg.sampler = {"name": "ddpm100", "type": "ddpm", "steps": 100}
    return load_experiment(cfg)


def test_rows_have_stable_keys_and_runtimes_agree(experiment, tmp_path):
    result = run_benchmark(experiment, say=lambda text: None)
    assert len(result["rows"]) == 4 * 3 * 2
    for row in result["rows"]:
        assert KEYS <= set(row)
        assert row["max_action_diff"] < 1e-5
        assert set(row["breakdown_ms"]) == {"observation_encoder", "conditioning", "denoiser", "scheduler"}
    full = [row for row in result["rows"] if (row["method"], row["sampler"], row["runtime"]) == ("full", "ddpm100", "reference")]
    assert {row["speedup_vs_full_reference"] for row in full} == {1.0}
    assert result["floors"]["gflops"] > 0.1
    assert len(list(benchmark_table(result))) == 2
    plot_benchmark(result, tmp_path / "benchmark.png")
    assert (tmp_path / "benchmark.png").stat().st_size > 5000
    assert "aten::" in trace_summary(experiment)


def test_without_the_reference_there_is_nothing_to_compare_with(experiment):
    experiment.cfg.runtimes = ["planned"]
    with pytest.raises(ConfigError, match="include reference"):
        run_benchmark(experiment, say=lambda text: None)


@pytest.mark.parametrize("text, name", [("full", "full@ddpm100"), ("bac_s7", "bac_s7@ddpm100"), ("uniform@ddim16", "uniform_s10@ddim16"),
                                        ("blockwise_acs_s5", "blockwise_acs_s5@ddpm100")])
def test_method_names(text, name):
    assert parse_method(text).name == name


@pytest.mark.parametrize("text", ["fastest", "bac_sx", "full@euler3", ""])
def test_unknown_methods(text):
    with pytest.raises(ConfigError, match="not known|unknown sampler"):
        parse_method(text)


def test_speed_ratio_cancels_a_drifting_machine():
    slow = Latency((10.0, 100.0, 1000.0), (1.0, 1.0, 1.0), 1, 8)
    fast = Latency((5.0, 50.0, 500.0), (1.0, 1.0, 1.0), 1, 8)
    assert speed_ratio(slow, fast) == 2.0
    assert slow.p50 == 100.0 and fast.action_hz == pytest.approx(160.0)
