"""From a finished tuning to its certificate, and what may replace a certificate that is there."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch

from bac.tuned import FILE, Claim, Identity, Tuned, TunedError
from bac_workbench.provenance import environment
from bac_workbench.setup.experiment import Experiment
from bac_workbench.setup.tuned import stored_settings_of
from bac_workbench.tuning.candidates import FULL
from bac_workbench.tuning.tune import Tuning
from diffusion_policy.common.config import ConfigError

#: settings that make a certificate another one
REQUEST = ("margin", "alpha", "candidates", "extra_candidates", "runtime", "precisions", "seed", "weights")


def certificate_path(experiment: Experiment) -> Path:
    """Where the certificate of a task is written."""
    return Path(experiment.settings.assets_dir).expanduser() / experiment.settings.task.name / FILE


def check_replaceable(experiment: Experiment) -> None:
    """Refuses to replace a certificate of other settings, unless overwrite=true.

    Raises:
        ConfigError: there is one, or a damaged one.
    """
    path = certificate_path(experiment)
    if experiment.settings.overwrite or not path.exists():
        return
    try:
        stored = Tuned.load(path)
    except TunedError as error:
        raise ConfigError(f"{error}; or use overwrite=true, which writes it anew") from error
    request = stored.details.get("request", {})
    differs = [
        f"{name} {request.get(name)} there, {value} now"
        for name, value in request_of(experiment).items()
        if request.get(name) != value
    ]
    if differs:
        raise ConfigError(
            f"{path} is the certificate of another tuning ({'; '.join(differs)}): use another assets_dir=, "
            "or overwrite=true to replace it"
        )


def request_of(experiment: Experiment) -> dict[str, Any]:
    settings = experiment.settings.to_dict()
    return {"checkpoint_hash": experiment.loaded.hash, **{name: settings.get(name) for name in REQUEST}}


def certificate(tuning: Tuning, request: dict[str, Any]) -> Tuned:
    """What is stored of a tuning.

    Args:
        request: see `request_of`, of the settings as they were typed.
    """
    experiment, settings = tuning.experiment, tuning.experiment.settings
    candidate, policy = tuning.candidates[tuning.chosen], experiment.policy
    proof = tuning.proof
    claim = None
    if proof is not None:
        verdict, difference = proof.last.verdict, proof.last.difference
        claim = Claim(
            margin=settings.margin,
            alpha=settings.alpha,
            level=verdict.alpha,
            n=verdict.pairs,
            difference=difference.mean,
            low=difference.low,
            high=difference.high,
            p_value=verdict.p_value,
            marks=tuple(tuning.behaviours[tuning.chosen].marks),
        )
    hz = tuning.times[tuning.chosen]["action_hz"]
    return Tuned(
        method=candidate.name,
        identity=Identity.of(policy, experiment.own_sampler),
        sampler=stored_settings_of(candidate.experiment),
        schedule=candidate.schedule,
        runtime=settings.runtime,
        precision=candidate.precision,
        claim=claim,
        details={
            "task": settings.task.name,
            "cache": candidate.experiment.cache.label,
            "sampler": candidate.experiment.sampler_name,
            "tokens": experiment.tokens.denoised,
            "trajectory_tokens": experiment.tokens.total,
            "target_hz": settings.target_hz,
            "action_hz": hz,
            "meets_target": None if settings.target_hz is None else hz >= settings.target_hz,
            "undecided": undecided(tuning),
            "request": request,
            "weights": experiment.loaded.weights,
            "seeds": {
                "noise": settings.seed,
                "selection_from": settings.selection.start_seed,
                "certification_from": tuning.certification_start,
                "other_sequences_tested_before": tuning.attempts,
            },
            "looks": settings.certification.looks,
            "n_envs": settings.rollouts.n_envs,
            "states": tuning.states,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "checkpoint": str(experiment.loaded.source),
            **environment(experiment.device, torch.get_num_threads(), experiment.simulator_packages),
            "candidates": rows_of(tuning),
        },
    )


def undecided(tuning: Tuning) -> dict[str, Any] | None:
    """Where nothing faster was proven: the candidate that came nearest, and how many episodes would decide."""
    if tuning.proof is not None:
        return None
    if tuning.proofs:
        verdict = tuning.proofs[0].last.verdict
        return {"candidate": tuning.proofs[0].name, "n": verdict.pairs, "pairs_needed": verdict.pairs_needed}
    standings = {} if tuning.selection is None else tuning.selection.standings
    nearest = max(standings, key=lambda name: (standings[name].power, standings[name].difference), default=None)
    if nearest is None:
        return None
    return {"candidate": nearest, "n": standings[nearest].n, "pairs_needed": None}


def rows_of(tuning: Tuning) -> list[dict[str, Any]]:
    """Every candidate, the full policy first, then from slow to fast; those that were not possible last."""
    target = tuning.experiment.settings.target_hz
    proofs = {proof.name: proof.to_dict() for proof in tuning.proofs}
    standings = {} if tuning.selection is None else tuning.selection.standings
    timed = sorted(tuning.times, key=lambda name: (name != FULL, -tuning.times[name]["ms_p50"]))
    rows = []
    for name in [*timed, *tuning.candidates.impossible]:
        times, ended = tuning.times.get(name), tuning.ended.get(name)
        distances = tuning.distances.get(name)
        stage = (
            "chosen" if name == tuning.chosen else "full policy" if name == FULL else ended.stage if ended else "screen"
        )
        rows.append(
            {
                "candidate": name,
                "stage": stage,
                "why": "" if ended is None else ended.why,
                "times": times,
                "meets_target": None if target is None or times is None else times["action_hz"] >= target,
                "distances": distances,
                "selection": None if name not in standings else vars(standings[name]),
                "proof": proofs.get(name),
                "behaviour": None if name not in tuning.behaviours else tuning.behaviours[name].to_dict(),
            }
        )
    return rows
