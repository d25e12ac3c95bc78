"""The certificate of a tuned policy: written, read, and refused where it does not belong."""

from __future__ import annotations

import json

import pytest
import torch

from bac.acceleration import accelerate
from bac.denoiser import model_blocks
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.tuned import Claim, Identity, Tuned, TunedError
from bac.uniform import uniform
from tests.bac.tiny_policies import observation, seeded, tiny_policy

CLAIM = Claim(0.05, 0.05, 0.02, 120, -0.0125, -0.03, 0.005, 0.0031, ("15 % more steps to success",))


@pytest.fixture
def policy():
    return tiny_policy(steps=100)


def certificate(policy, schedule=None, claim=CLAIM, **changes) -> Tuned:
    values = {
        "method": "full@ancestral4",
        "identity": Identity.of(policy),
        "sampler": GridSettings("ancestral", (90, 50, 20, 5)),
        "schedule": schedule,
        "runtime": "planned",
        "precision": "fp32",
        "claim": claim,
        "details": {"task": "tiny", "candidates": []},
    }
    return Tuned(**{**values, **changes})


def test_what_is_written_is_read_again(policy, tmp_path):
    path = tmp_path / "assets" / "tiny" / "tuned.json"
    cached = certificate(policy, uniform(model_blocks(policy.model), 4, 2))
    for tuned in (cached, certificate(policy), certificate(policy, claim=None, method="full", sampler=None)):
        tuned.save(path)
        assert Tuned.load(path) == tuned
        assert (path.parent / "tuned_schedule.json").exists() == (tuned.schedule is not None)
    assert "120 paired episodes" in str(cached) and str(cached).endswith("15 % more steps to success")
    assert str(tuned) == "full: the full policy, as nothing faster was proven"


@pytest.mark.parametrize("cached", [False, True])
def test_accelerate_runs_the_sampler_and_the_schedule_that_were_proven(policy, cached):
    schedule = uniform(model_blocks(policy.model), 4, 2) if cached else None
    tuned = certificate(policy, schedule)
    loop = GridLoop(policy.sampler, tuned.sampler)
    own = policy.sampler
    policy.sampler = loop
    with accelerate(policy, schedule, horizon="full") as fast:
        expected = fast.predict_action(observation(2), seeded(0, 1))["action_pred"]
    policy.sampler = own
    with accelerate(policy, tuned, horizon="full") as fast:
        assert torch.equal(fast.predict_action(observation(2), seeded(0, 1))["action_pred"], expected)
        report = fast.report()
    assert policy.sampler is own
    assert report.sampler == "ancestral4-at90_50_20_5" and report.proof == str(tuned) and report.proof in str(report)
    assert report.full_updates == 100 * len(model_blocks(policy.model))  # of the checkpoint's own sampler
    assert report.scheduled_updates == (2 if cached else 4) * len(model_blocks(policy.model))


def test_the_certificate_of_these_weights_is_found_among_others(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TunedError, match="no certificate .* is for this policy.*bac tune"):
        accelerate(policy, "tuned")
    certificate(tiny_policy(steps=100, seed=1)).save("assets/another/tuned.json")
    with pytest.raises(TunedError, match="of other policies: .*another/tuned.json"):
        accelerate(policy, "tuned")
    own = certificate(policy)
    own.save("assets/tiny/tuned.json")
    with accelerate(policy, "tuned") as fast:
        assert fast.tuned == own
    with pytest.raises(ValueError, match="give a Schedule, a Tuned, 'tuned' or None"):
        accelerate(policy, "fastest")


def test_a_certificate_of_another_policy_is_refused(policy):
    tuned = certificate(policy)
    policy.n_action_steps = 2
    with pytest.raises(TunedError, match=r"an executed chunk \(1, 5\), not \(1, 3\)"):
        accelerate(policy, tuned)
    policy.n_action_steps = 4
    policy.num_inference_steps = 50
    with pytest.raises(TunedError, match="the own sampler ddpm100, not ddpm50"):
        accelerate(policy, tuned)
    policy.num_inference_steps = 100
    with torch.no_grad():
        policy.normalizer["obs"].scale.mul_(2)
    with pytest.raises(TunedError, match="a normaliser"):
        accelerate(policy, tuned)


def test_another_precision_than_the_proven_one_is_refused_and_another_runtime_taken(policy):
    tuned = certificate(policy)
    with pytest.raises(TunedError, match="leave precision='bf16' out"):
        accelerate(policy, tuned, precision="bf16")
    assert accelerate(policy, tuned).sampler.name == "planned"
    assert accelerate(policy, tuned, runtime="reference").sampler.name == "reference"


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: stored.pop("claim"),
        lambda stored: stored.update(version=2),
        lambda stored: stored["sampler"].update(timesteps=[5, 90]),
        lambda stored: stored["claim"].update(n="many"),
        lambda stored: stored["policy"].update(executed=None),
        lambda stored: stored.update(schedule_digest="0" * 64),
        lambda stored: stored.update(method=3),
    ],
)
def test_a_damaged_certificate_is_told_in_one_line(policy, tmp_path, damage):
    path = tmp_path / "tuned.json"
    certificate(policy, uniform(model_blocks(policy.model), 4, 2)).save(path)
    stored = json.loads(path.read_text())
    damage(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(TunedError, match="tuned.json is no certificate .*restore it, or tune again") as caught:
        Tuned.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_certificate_or_schedule_is_told(policy, tmp_path):
    with pytest.raises(FileNotFoundError, match="make one with bac tune"):
        Tuned.load(tmp_path / "tuned.json")
    certificate(policy, uniform(model_blocks(policy.model), 4, 2)).save(tmp_path / "tuned.json")
    (tmp_path / "tuned_schedule.json").unlink()
    with pytest.raises(FileNotFoundError, match="tuned_schedule.json"):
        Tuned.load(tmp_path / "tuned.json")
