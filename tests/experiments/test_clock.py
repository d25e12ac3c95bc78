"""Evaluations in which the world goes on while the policy thinks, on a tiny policy in the real environment."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bac.runtime.choose import make_sampler
from bac_workbench.evaluation.comparison import compare
from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import default_output_dir, open_output_dir
from bac_workbench.settings import check
from bac_workbench.setup.acting import beginning_with
from bac_workbench.setup.clock import giving_chunks
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.clock import THINKING
from tests.bac.tiny_policies import every_runtime

pytest.importorskip("pymunk")


def real(thinking, latency):
    return ["eval.clock=real", f"eval.thinking={thinking}", f"eval.latency_ms={latency}"]


def experiment_of(settings):
    return load_experiment(settings, n_test=settings.eval.n_test, n_train=settings.eval.n_train)


def run(settings, say=lambda line: None):
    experiment = experiment_of(settings)
    return evaluate(experiment, open_output_dir(experiment), say)


def rows(folder):
    return (folder / "episodes.jsonl").read_text()


def test_without_latency_every_mode_gives_the_rows_of_a_world_that_waits(make_settings, tmp_path):
    run(make_settings(f"output_dir={tmp_path}/stop"))
    for thinking in THINKING:
        run(make_settings(*real(thinking, 0), f"output_dir={tmp_path}/{thinking}"))
        assert rows(tmp_path / thinking) == rows(tmp_path / "stop")
        run(make_settings(*real(thinking, 150), f"output_dir={tmp_path}/{thinking}-late"))
        assert rows(tmp_path / f"{thinking}-late") != rows(tmp_path / "stop")


def test_a_result_says_what_its_clock_was(make_settings, tmp_path):
    run(make_settings(*real("async", "[150,40]"), "runtime=planned"))
    stored = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert (
        stored["clock"]
        == stored["provenance"]["clock"]
        == {
            "thinking": "async",
            "latency_ms": [150.0, 40.0],
            "measured": False,
            "control_hz": 10.0,
            "delay_steps": [1, 2],
            "request_every": 8,
        }
    )
    assert stored["tokens"] == 11  # the current one comes second, 8 are executed, 2 bridge the delay
    assert any("the world goes on" in note for note in stored["provenance"]["notes"])
    run(make_settings(f"output_dir={tmp_path}/stop"))
    assert json.loads((tmp_path / "stop" / "eval_results.json").read_text())["clock"] == "stopped"


def test_a_folder_holds_the_episodes_of_one_clock(make_settings):
    run(make_settings(*real("hold", 150)))
    run(make_settings(*real("hold", 150)))
    for other in (real("hold", 200), real("async", 150), []):
        with pytest.raises(ConfigError, match="another evaluation.*clock"):
            run(make_settings(*other))


def test_an_evaluation_of_an_earlier_version_goes_on_as_one_whose_world_waits(make_settings, tmp_path):
    run(make_settings())
    path = tmp_path / "out" / "settings.json"
    settings = json.loads(path.read_text())
    del settings["clock"]
    path.write_text(json.dumps(settings))
    run(make_settings())
    with pytest.raises(ConfigError, match="clock 'stopped' there"):
        run(make_settings(*real("hold", 0)))


def test_measured_times_are_kept_when_an_evaluation_goes_on(make_settings, tmp_path):
    run(make_settings(*real("async", "measured")))
    clock = json.loads((tmp_path / "out" / "eval_results.json").read_text())["clock"]
    assert clock["measured"] and len(clock["latency_ms"]) == 30 and min(clock["latency_ms"]) > 0
    said = []
    run(make_settings(*real("async", "measured")), said.append)
    assert json.loads((tmp_path / "out" / "eval_results.json").read_text())["clock"] == clock
    assert any("goes on with the 30 times" in line for line in said)
    with pytest.raises(ConfigError, match="another evaluation"):
        run(make_settings(*real("async", "100")))


@pytest.mark.parametrize(
    ("latency", "ending"),
    [
        ("52", "full-ddpm8-rtc-52ms"),
        ("[40,52.5]", "full-ddpm8-rtc-40to52.5ms"),
        ("measured", "full-ddpm8-rtc-measured"),
    ],
)
def test_the_folder_is_named_by_the_clock(make_settings, latency, ending):
    assert default_output_dir(experiment_of(make_settings(*real("rtc", latency)))).name == ending


def test_a_latency_longer_than_the_episode_is_refused_before_anything_runs(make_settings):
    with pytest.raises(ConfigError, match="24 control steps at 10 Hz, and an episode ends after 24"):
        experiment_of(make_settings(*real("hold", 2400)))


def test_the_policy_acts_as_before_once_the_evaluation_has_ended(make_settings):
    experiment = experiment_of(make_settings(*real("async", 300)))
    evaluate(experiment, open_output_dir(experiment), lambda line: None)
    assert experiment.policy.n_action_steps == 8
    with giving_chunks(experiment):
        assert experiment.policy.n_action_steps == 11


@every_runtime
def test_a_chunk_begins_with_what_is_executed_meanwhile(make_settings, runtime):
    experiment = experiment_of(make_settings(*real("rtc", 300)))
    policy = experiment.policy
    with giving_chunks(experiment), torch.no_grad():
        obs = policy.random_observation(3, torch.Generator().manual_seed(0))
        plain = policy.sampler_inputs(obs)
        known = np.array([[100.0, 200.0], [130.0, 240.0]])
        inputs = beginning_with(policy, plain, [known, None, known[:1]])
        sampler = make_sampler(experiment.sampler, None, runtime, tokens=experiment.tokens.kept)
        free, bound = (
            policy.decode(sampler(given, torch.Generator().manual_seed(1)))["action"].numpy()
            for given in (plain, inputs)
        )
    assert np.allclose(bound[0, :2], known, atol=1e-3) and np.allclose(bound[2, :1], known[:1], atol=1e-3)
    assert np.allclose(bound[1], free[1], atol=1e-3)  # nothing is committed in this row
    assert not np.allclose(bound[0, 2:], free[0, 2:], atol=1.0)  # what follows knows of it


def test_clocks_are_compared_but_never_mixed(make_cfg, tmp_path):
    def store(name, *overrides):
        settings = check(
            make_cfg("~sampler.steps", "cache=full", *overrides, f"output_dir={tmp_path}/all/{name}"), "eval"
        )
        run(settings)

    store("stop")
    store("late", *real("async", 150))
    store("later", *real("async", 250))
    comparison = compare(tmp_path / "all")
    labels = {row["run"]: row["label"] for row in comparison.rows}
    assert comparison.references == ("stop",) and comparison.reference_clock == ""
    assert labels == {"stop": "full", "late": "full, async 150 ms", "later": "full, async 250 ms"}
    assert (tmp_path / "all" / "latency.png").stat().st_size > 1000
    named = compare(tmp_path / "all", "late")
    assert named.references == ("late",) and named.reference_clock == "async 150 ms"


@pytest.mark.parametrize("clock", ["going", {}, {"thinking": "async", "measured": True, "latency_ms": []}, [1]])
def test_a_damaged_clock_is_named(make_settings, tmp_path, clock):
    run(make_settings(*real("async", 50)))
    for name, place in (("settings.json", []), ("eval_results.json", ["provenance"])):
        path = tmp_path / "out" / name
        stored = json.loads(path.read_text())
        (stored[place[0]] if place else stored)["clock"] = clock
        path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"settings.json is damaged.*clock"):
        run(make_settings(*real("async", "measured")))
    with pytest.raises(ConfigError, match=r"eval_results.json is damaged.*clock"):
        compare(tmp_path)
