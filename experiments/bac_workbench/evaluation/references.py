"""Which runs of the full policy a folder's evaluations are paired with, and which evaluations cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bac_workbench.evaluation.pooling import draw_name
from bac_workbench.evaluation.stored_results import EXACT, SAME, Draw, StoredEvaluation
from bac_workbench.settings.clock import STOPPED
from bac_workbench.setup.clock import clock_label
from diffusion_policy.common.config import ConfigError

#: what tells several runs of the full policy apart, in words
TOLD = ("checkpoint_hash", "weights", "seed", "runtime", "precision")


def choose_references(
    folder: Path, evaluations: list[StoredEvaluation], name: str | None
) -> dict[Draw, StoredEvaluation]:
    """Noise seed and training -> the run to pair with.

    It has to BE the full policy, every block at every step of the checkpoint's own sampler.
    """
    runs = "; ".join(
        f"{e.run} ({e.method}, sampler {e.sampler}" + (f": {why}" if (why := e.why_not_full()) else "") + ")"
        for e in evaluations
    )
    if not evaluations:
        raise ConfigError(f"{folder} holds no evaluations (no */eval_results.json): run bac eval with cache=full first")
    if name is not None:
        named = [e for e in evaluations if e.run == name]
        if not named:
            raise ConfigError(f"{folder} holds no run {name}; it holds: {runs}")
        if (why := named[0].why_not_full()) is not None:
            raise ConfigError(
                f"{name} cannot be the reference, as it is not the full policy with the checkpoint's own sampler: {why}"
            )
        return {named[0].draw: named[0]}

    # Where the world waits, and in fp32, if there are such runs: that is what latency and precision are compared with.
    def rank(evaluation: StoredEvaluation) -> tuple[bool, bool]:
        return evaluation.clock != STOPPED, evaluation.precision != EXACT

    full = sorted((e for e in evaluations if e.why_not_full() is None), key=rank)
    full = [e for e in full if rank(e) == rank(full[0])]
    if not full:
        raise ConfigError(
            f"{folder} holds no evaluation of the full policy with the checkpoint's own sampler: "
            f"run bac eval with cache=full first. It holds: {runs}"
        )
    references = {e.draw: e for e in sorted(full, key=lambda e: e.draw)}
    first = next(iter(references.values()))
    if len(references) < len(full) or any(differences(first, e) or how(e) != how(first) for e in full):
        differs = "; ".join(
            f"{e.run}: "
            + ", ".join(f"{key} {e.provenance[key]}" for key in TOLD)
            + (f", {label}" if (label := clock_label(e.clock)) else "")
            for e in full
        )
        raise ConfigError(
            f"{folder} holds {len(full)} evaluations of the full policy ({differs}). Name the one to pair with: "
            f"bac compare {folder} {full[0].run}"
        )
    return references


def how(evaluation: StoredEvaluation) -> tuple[Any, str]:
    """What all runs that others are paired with must share, and those paired with them need not."""
    return evaluation.clock, evaluation.precision


def differences(evaluation: StoredEvaluation, reference: StoredEvaluation) -> list[str]:
    """Under which other conditions than `reference` a run was made, but for the noise seed, in words.

    Runs of different published trainings have different checkpoints.
    """
    own, other = evaluation.provenance, reference.provenance
    trained = None not in (evaluation.train, reference.train) and evaluation.draw[:2] != reference.draw[:2]
    keys = [key for key in SAME if own[key] != other[key] and not (trained and key == "checkpoint_hash")]
    return [f"{key} {_short(own[key])} instead of {_short(other[key])}" for key in keys]


def why_not(evaluation: StoredEvaluation, references: dict[Draw, StoredEvaluation]) -> str | None:
    """Why an evaluation cannot be paired with the references, None if it can."""
    if evaluation.incomplete:
        return evaluation.incomplete
    draw = evaluation.draw
    reference = references.get(draw, next(iter(references.values())))
    differs = differences(evaluation, reference)
    if draw not in references:
        differs.append(f"seed {draw_name(draw)} instead of {', '.join(map(draw_name, references))}")
    if differs:
        return "; ".join(differs)
    return None if evaluation.scores.keys() & reference.scores.keys() else "no test episode in common"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
