"""Evaluation end to end on a tiny policy in the real environment."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from pathlib import Path

import pytest
import torch

from bac.schedule import Schedule, ScheduleError
from bac_workbench.console import readable_errors
from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import default_output_dir, open_output_dir
from bac_workbench.evaluation.report import row
from bac_workbench.setup.acting import noise_generator
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError

pytest.importorskip("pymunk")
pytestmark = pytest.mark.usefixtures("quick_pictures")


def run(settings, on_episode=None):
    experiment = load_experiment(settings, n_test=settings.eval.n_test, n_train=settings.eval.n_train)
    said = []
    return evaluate(experiment, open_output_dir(experiment), said.append, on_episode), said


def scores(evaluation):
    return [(row.seed, row.score, row.env_steps) for row in evaluation.episodes]


@pytest.mark.parametrize("cache", ["full", "uniform", "unified_acs", "blockwise_acs", "bac"])
def test_every_cache_runs_and_writes_its_files(make_settings, tmp_path, cache):
    cfg = make_settings(
        f"cache={cache}",
        *(["cache.budget=3"] if cache != "full" else []),
        *(["cache.top_k=2"] if cache == "bac" else []),
    )
    evaluation, said = run(cfg)
    stored = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert stored["mean_score"] == evaluation.results["mean_score"]
    low, high = stored["mean_score_interval_95"]
    assert low <= stored["mean_score"] <= high
    assert stored["n_episodes"] == 3 == len((tmp_path / "out" / "episodes.jsonl").read_text().splitlines())
    assert stored["provenance"]["weights"] == "ema" and stored["provenance"]["seed"] == 0
    assert any("profiling now" in line for line in said) == (cache not in ("full", "uniform"))
    if cache == "full":
        assert stored["flops"]["ratio_full_to_method"] == 1.0
    else:
        schedule = Schedule.load(tmp_path / "out" / "schedule.json")
        assert schedule.update_count == stored["block_updates"]["per_chunk"] < stored["block_updates"]["full"]
        assert (tmp_path / "out" / "schedule.png").stat().st_size > 1000


def test_profile_is_measured_once_and_tied_to_the_checkpoint(make_settings, tmp_path):
    _, said = run(make_settings("cache=bac", "cache.budget=3"))
    assert any("profiling now" in line for line in said)
    _, said = run(make_settings("cache=bac", "cache.budget=2", f"output_dir={tmp_path}/second"))
    assert not any("profiling now" in line for line in said)
    assert json.loads((tmp_path / "assets/pusht_lowdim/ddpm8/profile.json").read_text())["observations"] == 2


def test_full_budget_equals_no_cache_bit_for_bit(make_settings, tmp_path):
    full, _ = run(make_settings("cache=full", "runtime=reference", f"output_dir={tmp_path}/full"))
    all_steps, _ = run(
        make_settings("cache=uniform", "cache.budget=8", "runtime=reference", f"output_dir={tmp_path}/all")
    )
    assert scores(full) == scores(all_steps)


class Killed(BaseException):
    pass


def kill(result):
    raise Killed


@pytest.mark.parametrize("runtime", ["reference", "planned", "compiled"])
def test_interrupted_evaluation_ends_with_the_same_numbers(make_settings, tmp_path, runtime):
    whole, _ = run(
        make_settings("cache=uniform", "cache.budget=3", f"runtime={runtime}", f"output_dir={tmp_path}/whole")
    )

    cfg = make_settings("cache=uniform", "cache.budget=3", f"runtime={runtime}", f"output_dir={tmp_path}/parts")
    with pytest.raises(Killed):
        run(cfg, kill)
    rows = tmp_path / "parts" / "episodes.jsonl"
    assert len(rows.read_text().splitlines()) == 1
    assert not (tmp_path / "parts" / "eval_results.json").exists()
    rows.write_text(rows.read_text() + '{"index": 1, "se')  # killed in the middle of a line
    resumed, said = run(cfg)
    assert any("1 of 3 episodes are already" in line for line in said)
    assert scores(resumed) == scores(whole)
    assert resumed.results["mean_score"] == whole.results["mean_score"]


def test_a_worker_killed_for_memory_is_explained_and_finished_episodes_stay(make_settings, tmp_path, capsys):
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("cannot list child processes here")

    def kill_workers(result):
        for pid in children.read_text().split():
            if b"env_runner.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)

    one_by_one = ["eval.n_envs=1", "eval.n_workers=1", "eval.overlap=never"]
    cfg = make_settings("cache=full", "sampler.steps=1", *one_by_one)
    with pytest.raises(SystemExit), readable_errors():
        run(cfg, kill_workers)
    message = capsys.readouterr().err
    assert "SIGKILL): likely out of memory. Use fewer environments (n_envs) or fewer workers (n_workers)" in message
    assert "seed 100001" in message and "Traceback" not in message
    _, said = run(cfg)
    assert any("1 of 3 episodes are already" in line for line in said)


def test_after_memory_ran_out_fewer_environments_go_on(make_settings):
    small = ["cache=full", "sampler.steps=1"]
    with pytest.raises(Killed):
        run(make_settings(*small, "eval.n_envs=2"), kill)
    evaluation, said = run(make_settings(*small, "eval.n_envs=1"))
    assert any("1 of 3 episodes are already" in line for line in said)
    assert any("eval.n_envs=1 now, [2] before" in line and "rounds differently" in line for line in said)
    assert evaluation.results["n_episodes"] == 3
    provenance = evaluation.results["provenance"]
    assert (provenance["n_envs"], provenance["earlier_n_envs"]) == (1, [2])
    with pytest.raises(ConfigError, match="cache 'full' there, 'uniform_s1' now"):
        run(make_settings("cache=uniform", "cache.budget=1", *small[1:], "eval.n_envs=1"))


def test_methods_share_initial_states_and_noise(make_settings):
    episodes = load_experiment(make_settings(), n_test=2, n_train=1).task.episodes()
    assert [e.seed for e in episodes] == [0, 100000, 100001]
    draws = [[torch.randn(3, generator=noise_generator(seed, e)).tolist() for e in episodes] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len({tuple(d) for d in draws[0]}) == 3


def test_another_evaluation_in_the_same_folder_is_refused(make_settings):
    run(make_settings("cache=uniform", "cache.budget=3"))
    with pytest.raises(ConfigError, match="cache 'uniform_s3' there, 'uniform_s2' now.*overwrite=true"):
        run(make_settings("cache=uniform", "cache.budget=2"))
    evaluation, _ = run(make_settings("cache=uniform", "cache.budget=2", "overwrite=true"))
    assert evaluation.results["method"] == "uniform_s2"


def test_a_finished_evaluation_can_be_left_as_it_is(make_settings, tmp_path):
    experiment = load_experiment(make_settings(), n_test=2, n_train=0)
    first = evaluate(experiment, tmp_path / "out", print, keep_finished=True)
    assert not first.was_there
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*_results.json")}
    again = evaluate(experiment, tmp_path / "out", print, keep_finished=True)
    assert again.was_there and again.results == json.loads(json.dumps(first.results))
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*_results.json")}
    timed = load_experiment(make_settings("benchmark.n_chunks=1"), n_test=2, n_train=0)
    assert not evaluate(timed, tmp_path / "out", print, keep_finished=True).was_there, "its times were missing"
    more = load_experiment(make_settings(), n_test=3, n_train=0)
    assert not evaluate(more, tmp_path / "out", print, keep_finished=True).was_there


def test_latency_is_measured_against_the_plain_policy(make_settings, tmp_path):
    evaluation, _ = run(make_settings("cache=uniform", "cache.budget=1", "benchmark.n_chunks=3", "eval.n_test=1"))
    stored = json.loads((tmp_path / "out" / "benchmark_results.json").read_text())
    assert stored["speedup"] == evaluation.results["speedup"] > stored["speedup_same_runtime"] > 1.0
    assert (
        stored["plain_policy"]["sampler"] == "ddpm100"
        and stored["full_same_runtime"]["runtime"] == stored["method"]["runtime"] == "planned"
    )
    assert stored["method"]["action_hz"] == pytest.approx(8 * stored["method"]["chunks_per_s"], rel=1e-3)
    timed = ("plain_policy", "full_same_runtime_all_tokens", "full_same_runtime", "method")
    assert [stored[name]["tokens"] for name in timed] == [16, 16, 9, 9]
    assert list(stored["levers"]) == ["runtime", "tokens", "steps_and_schedule"]
    assert math.prod(stored["levers"].values()) == pytest.approx(stored["speedup"], rel=2e-3)
    assert stored["levers"] == evaluation.results["levers"]


def test_a_precision_says_how_far_it_moves_the_actions(make_settings):
    def lines(*overrides):
        evaluation, said = run(make_settings("cache=full", *overrides))
        return row(evaluation.results, None)[0], [line for line in said if line.startswith("precision ")]

    assert lines("precision=fp32")[1] == []
    name, (line,) = lines("precision=bf16", "overwrite=true")
    apart, noise = (float(number) for number in re.findall(r"([0-9.]+)%", line))
    assert name.endswith(", bf16") and 0 < apart < noise


def test_executed_tokens_change_the_arithmetic_and_not_the_episodes(make_settings, tmp_path):
    """So a folder of the one goes on with the other."""
    results = {}
    for horizon in ("executed", "full"):
        cfg = make_settings("cache=full", "runtime=compiled", f"horizon={horizon}", f"output_dir={tmp_path}/{horizon}")
        evaluation, _ = run(cfg)
        results[horizon] = evaluation
    executed, full = results["executed"].results, results["full"].results
    assert scores(results["executed"]) == scores(results["full"])
    assert [(r["tokens"], r["trajectory_tokens"]) for r in (executed, full)] == [(9, 16), (16, 16)]
    assert executed["flops"]["plain_gflop_per_chunk"] == full["flops"]["plain_gflop_per_chunk"]
    assert executed["flops"]["gflop_per_chunk"] < full["flops"]["gflop_per_chunk"]
    assert executed["flops"]["ratio_full_to_method"] == full["flops"]["ratio_full_to_method"] == 1.0
    assert executed["provenance"]["tokens"] == "9 of 16 tokens: the others never reach the executed actions"
    assert full["provenance"]["tokens"] == "16 of 16 tokens: horizon=full"
    _, said = run(make_settings("cache=full", "runtime=compiled", "horizon=full", f"output_dir={tmp_path}/executed"))
    assert any("3 of 3 episodes are already" in line for line in said)


def test_overlapping_gives_the_same_episodes(make_settings, tmp_path):
    """The policy computes for two episodes while two others move; also by itself, where it can."""
    found = {}
    for overlap in ("never", "always", "auto"):
        folder = f"output_dir={tmp_path}/{overlap}"
        choices = [f"eval.overlap={overlap}", "eval.n_test=5", "eval.n_workers=2", folder]
        found[overlap], _ = run(make_settings("cache=full", *choices))
    assert found["never"].episodes == found["always"].episodes == found["auto"].episodes
    calls = {name: evaluation.results["rollout"]["policy_calls"] for name, evaluation in found.items()}
    assert calls["always"] == calls["auto"] >= calls["never"]


def test_video_is_recorded(make_settings, tmp_path):
    evaluation, _ = run(make_settings("cache=full", "eval.n_videos=1", "eval.n_test=1"))
    assert (tmp_path / "out" / evaluation.episodes[0].video).stat().st_size > 1000


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["cache=bac", "cache.budget=9"], "cache.budget=9: use 1 to 8"),
        (["cache=bac", "cache.budget=0"], "a whole number from 1"),
        (["cache=bac", "cache.budget=2", "cache.top_k=7"], "use 0 to 6"),
        (["cache=bac", "cache.budget=2", "cache.metric=dot"], "cosine"),
        (["cache=bac", "cache.budget=2", "cache.objective=best"], "cached_to_skipped"),
        (["cache.method=magic"], "unified_acs"),
        (["device=cuda:9"], "device=cuda:9"),
        (["device=tpu"], "use auto, cpu, cuda"),
        (["weights=raw"], "weights=ema"),
        (["checkpoint=nowhere"], "no checkpoint at nowhere"),
        (["sampler.steps=101"], "use 1 to 100"),
        (["sampler.type=euler"], "ddim"),
        (["task.n_action_steps=16"], "use 1 to 15"),
        (["task.n_action_steps=0"], "use a whole number from 1"),
        (["task.n_latency_steps=8"], "use 1 to 7"),
        (["task.n_latency_steps=15"], "use 0 to 14"),
        (["task.n_obs_steps=3"], "not a policy for task pusht_lowdim: it has n_obs_steps 2 instead of 3"),
        (["threads=0"], "from 1 to"),
        (["output_dir=/dev/null/results"], "cannot be written"),
    ],
)
def test_bad_settings_are_clear_errors_and_leave_nothing_behind(make_settings, tmp_path, overrides, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        run(make_settings(*overrides))
    out = tmp_path / "out"
    assert not out.exists() or not [p for p in out.iterdir() if p.name != "settings.json"]


def test_runtime_that_does_not_exist(make_settings):
    with pytest.raises(ValueError, match="reference, planned or compiled"):
        run(make_settings("cache=full", "runtime=turbo"))


def test_schedule_of_another_step_count_is_refused(make_settings):
    experiment = load_experiment(make_settings(), n_test=1)
    from bac.acceleration import accelerate
    from bac.denoiser import model_blocks

    with pytest.raises(ScheduleError, match="16 denoising steps, the sampler takes 8"):
        with experiment.attached() as policy:
            accelerate(policy, Schedule.full(model_blocks(policy.model), 16))


def test_default_folder_names_what_is_unusual(make_settings, checkpoint):
    def name(*overrides, the_tasks_own=True):
        if the_tasks_own:
            overrides = (*overrides, f"task.checkpoint={checkpoint}")
        return (
            default_output_dir(load_experiment(make_settings(*overrides)))
            .as_posix()
            .removeprefix("results/pusht_lowdim/")
        )

    own = "sampler=checkpoint", "sampler.steps=null"
    assert name("cache=bac", *own) == "bac" and name("cache=full", *own) == "full"
    assert name("cache=full", "sampler=ddpm100", "sampler.steps=100") == "full"
    assert name("cache=full") == "full-ddpm8"
    assert name("cache=full", "sampler.type=ddim") == "full-ddim8"
    assert name("cache=bac", "cache.budget=7", "seed=2", *own) == "bac_s7-seed2"
    assert name("cache=bac", "cache.metric=l1", "cache.top_k=3", *own) == "bac_s10_l1_k3"
    assert name("cache=full", "task.n_action_steps=4", *own) == "full-actions4"
    assert name("cache=full", "task.n_latency_steps=2", "task.n_action_steps=6", *own) == "full-latency2"
    assert name("cache=full", "runtime=compiled", "seed=1", *own) == "full-compiled-seed1"
    other = load_experiment(make_settings(*own)).loaded.hash[:8]
    assert name("cache=full", *own, the_tasks_own=False) == f"full-{other}"
