"""A tuning end to end on a tiny policy in the real environment, interrupted and followed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bac.acceleration import accelerate
from bac.tuned import Tuned, TunedError
from bac_workbench.console import progress_bar
from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import default_output_dir, open_output_dir
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.tuning.certificate import certificate, certificate_path, check_replaceable, request_of
from bac_workbench.tuning.picture import plot_tuned
from bac_workbench.tuning.progress import TuningProgress
from bac_workbench.tuning.report import markdown, tuned_table, verdict_lines
from bac_workbench.tuning.tune import certify, check_verdicts, measure, prepare, select
from diffusion_policy.common.config import ConfigError

pytest.importorskip("pymunk")

ROOT = Path(__file__).parents[2]

SMALL = [
    "candidates=[full@ancestral4,full@ddim3]",
    "runtime=planned",
    "margin=0.5",
    "timing.n_chunks=2",
    "timing.warmup=0",
    "screen.n_episodes=3",
    "screen.n_states=3",
    "screen.n_samples=2",
    "screen.max_energy=1e9",
    "selection.rounds=[2,5]",
    "certification.looks=[6,8]",
    "rollouts.n_envs=2",
    "rollouts.n_workers=0",
    "task.environment.max_steps=8",  # one chunk
]


@pytest.fixture
def make_tuning(make_cfg, tmp_path):
    """make_tuning('margin=0.4', ...) -> experiment of a small tuning."""

    def make(*overrides: str):
        overrides = (*SMALL, *overrides)
        # the tiny policy as it is: a sampler is no setting of this command
        cfg = make_cfg(*overrides, script="tune")
        return load_experiment(check(cfg, "tune", [*overrides]))

    return make


def tune(experiment, folder: Path, on_episode=None):
    """The stages of the command, without its prints."""
    said: list[str] = []
    with progress_bar() as bar:
        progress = TuningProgress(bar)
        if on_episode is not None:
            progress.episode = on_episode
        tuning = prepare(experiment, said.append)
        measure(tuning, folder, progress, said.append)
        select(tuning, folder, progress, said.append)
        certify(tuning, folder, progress, said.append)
    return tuning, said


def stored(tuning, experiment, tmp_path) -> Tuned:
    tuned = certificate(tuning, request_of(experiment))
    tuned.save(certificate_path(experiment))
    return Tuned.load(certificate_path(experiment))


class Killed(BaseException):
    pass


def test_a_killed_tuning_ends_with_the_same_certificate(make_tuning, tmp_path):
    experiment = make_tuning()
    folder = tmp_path / "tuning"
    for most in (3, 9, 17):  # killed in the selection, between its rounds, and in the proof
        left = [most]

        def kill(name, result, left=left):
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with pytest.raises(Killed):
            tune(experiment, folder, kill)
    resumed, said = tune(experiment, folder)
    again, _ = tune(experiment, folder)
    one, other = (certificate(item, request_of(experiment)) for item in (resumed, again))
    assert one.claim == other.claim and one.method == other.method != "full"
    assert one.details["candidates"] == other.details["candidates"]
    assert one.details["seeds"]["other_sequences_tested_before"] == 0
    rows = (folder / "certification" / "400000" / "full" / "episodes.jsonl").read_text().splitlines()
    seeds = [json.loads(row)["seed"] for row in rows]
    assert sorted(seeds) == list(range(400000, 400000 + len(seeds)))  # none twice


@pytest.fixture
def tuned(make_tuning, tmp_path):
    experiment = make_tuning()
    tuning, _ = tune(experiment, tmp_path / "tuning")
    return experiment, tuning, stored(tuning, experiment, tmp_path)


def test_the_certificate_is_followed_and_says_what_was_proven(tuned, make_settings, tmp_path, monkeypatch):
    experiment, tuning, written = tuned
    details = written.details
    assert written.claim.margin == 0.5 and written.claim.n in (6, 8) and written.method == tuning.chosen
    assert details["seeds"]["certification_from"] == 400_000 and details["tokens"] == 9
    outcomes = {row["candidate"]: row["stage"] for row in details["candidates"]}
    assert outcomes[written.method] == "chosen" and outcomes["full"] == "full policy" and len(outcomes) == 3
    assert all(row["why"] for row in details["candidates"] if row["stage"] not in ("chosen", "full policy"))
    assert written.method in markdown(written) and "not worse than the full policy by more than 0.5" in str(written)
    assert tuned_table(details["candidates"], "title").row_count == 3 and len(verdict_lines(written)) >= 2

    plot_tuned(written, tmp_path / "tuned.png")
    assert (tmp_path / "tuned.png").stat().st_size > 10_000

    followed = load_experiment(make_settings("cache=tuned", "sampler.steps=null"), n_test=2, n_train=0)
    assert followed.sampler_name == details["sampler"] and followed.cache.label == "full"
    assert default_output_dir(followed).name.startswith(f"full-{details['sampler']}")
    assert any("tuned.json" in note and "not worse" in note for note in followed.notes)
    results = evaluate(followed, open_output_dir(followed), lambda line: None).results
    assert (results["method"], results["sampler"]) == ("full", details["sampler"])

    monkeypatch.chdir(tmp_path)  # assets/<task>/tuned.json of the working directory
    policy = experiment.policy
    observation = policy.random_observation(1, torch.Generator().manual_seed(0))
    with accelerate(policy, "tuned") as fast:
        action = fast.predict_action(observation, torch.Generator().manual_seed(1))["action"]
        assert "not worse than the full policy by more than 0.5" in str(fast.report())
    with followed.attached() as plain:
        expected = plain.predict_action(observation, torch.Generator().manual_seed(1))["action"]
    assert torch.allclose(action, expected, atol=1e-3)  # actions are of the order of 500


def test_a_certificate_of_another_policy_is_refused(tuned, make_settings):
    experiment, _, written = tuned
    policy = experiment.policy
    with torch.no_grad():
        policy.normalizer["action"].offset.add_(0.1)
    with pytest.raises(TunedError, match="proven for a normaliser"):
        accelerate(policy, written)
    with torch.no_grad():
        policy.normalizer["action"].offset.sub_(0.1)
        policy.model.input_emb.weight.mul_(1.1)
    with pytest.raises(TunedError, match="proven for .*weights"):
        accelerate(policy, written)
    with pytest.raises(ConfigError, match="precision=fp32, which changes the actions"):
        load_experiment(make_settings("cache=tuned", "sampler.steps=null", "precision=bf16"))
    with pytest.raises(TunedError, match="an executed chunk"):
        load_experiment(make_settings("cache=tuned", "sampler.steps=null", "task.n_action_steps=4"))


def test_another_certificate_is_never_replaced_unasked(tuned, make_tuning):
    experiment, _, _ = tuned
    check_replaceable(experiment)  # its own
    with pytest.raises(ConfigError, match="margin 0.5 there, 0.4 now.*overwrite=true"):
        check_replaceable(make_tuning("margin=0.4"))
    check_replaceable(make_tuning("margin=0.4", "overwrite=true"))
    certificate_path(experiment).write_text("{}")
    with pytest.raises(ConfigError, match="is no certificate.*overwrite=true"):
        check_replaceable(experiment)


def test_a_candidate_that_this_checkpoint_cannot_have_is_told(make_tuning):
    tuning = prepare(make_tuning("candidates=[full@ddim3,full@ddim200,full]"), lambda line: None)
    assert list(tuning.candidates.named) == ["full@ddim3"]  # the full policy is no candidate
    assert "use 1 to 100" in tuning.ended["full@ddim200"].why


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["margin=0"], "margin=0: use a finite number above 0 and below 1"),
        (["margin=1.5"], "above 0 and below 1"),
        (["alpha=0.7"], "below 0.5"),
        (["candidates=[fulll@ddim3]"], "'fulll@ddim3' is not known"),
        (["candidates=[full@euler3]"], "names an unknown sampler"),
        (["candidates=[bac_s0]"], "has a budget of 0: use 1 to"),
        (["candidates=[tuned@ddim3]"], "write tuned alone"),
        (["extra_candidates=[tuned]"], "tuned is what this command finds"),
        (["selection.rounds=[8,4]"], "ascending"),
        (["certification.looks=[3]"], "5 seeds at least"),
        (["certification.start_seed=300500"], "use seeds that nothing else uses"),
        (["selection.start_seed=100010"], "use seeds that nothing else uses"),
        (["precisions=[fp16]", "runtime=planned", "device=cpu"], "fp16 needs a GPU"),
        (["target_hz=0"], "above 0"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_computed(make_cfg, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check(make_cfg(*overrides, script="tune"), "tune", overrides)


def test_looks_that_can_decide_nothing_are_refused(make_cfg):
    overrides = ["margin=0.05", "certification.looks=[20,40]"]
    settings = check(make_cfg(*overrides, script="tune"), "tune", overrides)
    with pytest.raises(ConfigError, match="even if all episodes agreed"):
        check_verdicts(settings)
    check_verdicts(check(make_cfg(script="tune"), "tune", []))


def test_a_sampler_beside_the_certificate_is_refused(make_cfg):
    overrides = ["cache=tuned", "sampler.steps=null", "sampler=ddim16"]
    with pytest.raises(ConfigError, match="the certificate says which sampler"):
        check(make_cfg(*overrides), "eval", overrides)


def test_a_screen_needs_no_place_for_a_certificate(tmp_path):
    """The bundled policy has a certificate; a screen on recorded observations writes none, so nothing is in its way."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "recorded.npz", obs=rng.uniform(100, 400, (3, 2, 20)).astype(np.float32))
    settings = ["task=pusht_lowdim", f"observations={tmp_path}/recorded.npz", f"output_dir={tmp_path}/screen"]
    settings += ["candidates=[full@ancestral3]", "runtime=planned", "timing.n_chunks=1", "timing.warmup=0"]
    settings += ["screen.n_samples=2", "threads=1", "device=cpu"]
    command = [sys.executable, str(ROOT / "scripts" / "tune.py"), *settings]
    before = certificate_of_bundled()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "A screen proves nothing" in done.stdout and "chosen" not in done.stdout
    rows = json.loads((tmp_path / "screen" / "screen.json").read_text())["candidates"]
    assert [row["candidate"] for row in rows] == ["full", "full@ancestral3"]
    assert certificate_of_bundled() == before


def certificate_of_bundled() -> bytes:
    return (ROOT / "assets" / "pusht_lowdim" / "tuned.json").read_bytes()
