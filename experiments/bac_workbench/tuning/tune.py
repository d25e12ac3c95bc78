"""Tuning from start to end: candidates, times, screen, selection, proof, certificate.

Files in the output folder: `measured.json` (times and distances), `selection/<candidate>/` and
`certification/<first seed>/<candidate>/` (episodes, as in an evaluation's folder), `plan.json` in each block of
certification seeds. Whatever is there is not done again, so that a killed tuning goes on with the same decisions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bac.errors import Unavailable
from bac.native import build
from bac.native.levels import choose_level
from bac.profile_source import recording_kind
from bac_workbench.evaluation.folder import simulation_settings
from bac_workbench.evaluation.noninferiority import least_pairs
from bac_workbench.evaluation.spending import spending
from bac_workbench.provenance import hardware
from bac_workbench.settings.tuning import Tune
from bac_workbench.setup.experiment import Experiment
from bac_workbench.tuning.candidates import FULL, Candidates, make_candidates
from bac_workbench.tuning.decisions import Ended, Screened, Selection, screen_out, successive_halving
from bac_workbench.tuning.episodes import Block, RollOutBeside
from bac_workbench.tuning.evidence import Behaviour, behaviour
from bac_workbench.tuning.ledger import certification_block, recall, remember
from bac_workbench.tuning.measure import measure_distances, measure_times, samplers_of, tuning_states
from bac_workbench.tuning.progress import TuningProgress
from bac_workbench.tuning.proof import Proof, fixed_sequence
from diffusion_policy.common.config import ConfigError

Say = Callable[[str], None]


@dataclass
class Tuning:
    """What a tuning came to, as far as it has come.

    Attributes:
        times, distances: by candidate; see `measure`.
        states: where the states of the screen come from.
        ended: where each candidate's way ended and why; the chosen one is not among them.
        behaviours: of candidates with episodes, over the last stage they were in.
        proofs: in the order tested.
        certification_start: first seed of the proof; `attempts` is how many other sequences were tested before.
    """

    experiment: Experiment
    candidates: Candidates
    times: dict[str, dict[str, float]] = field(default_factory=dict)
    distances: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: str = ""
    ended: dict[str, Ended] = field(default_factory=dict)
    selection: Selection | None = None
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    proofs: list[Proof] = field(default_factory=list)
    certification_start: int | None = None
    attempts: int = 0

    @property
    def chosen(self) -> str:
        """The last candidate that passed; the full policy where none did."""
        return next((proof.name for proof in reversed(self.proofs) if proof.passed), FULL)

    @property
    def proof(self) -> Proof | None:
        """Of the chosen one."""
        return next((proof for proof in reversed(self.proofs) if proof.passed), None)


def check_verdicts(settings: Tune) -> None:
    """Refuses looks after which no verdict is possible, whatever the episodes say.

    Raises:
        ConfigError: naming how many are needed.
    """
    looks = settings.certification.looks
    levels = spending([n / looks[-1] for n in looks], settings.alpha)
    if all(n < least_pairs(settings.margin, level) for n, level in zip(looks, levels) if level > 0):
        needed = least_pairs(settings.margin, levels[-1])
        raise ConfigError(
            f"certification.looks={looks} are too few seeds for margin={settings.margin:g}: even if all episodes "
            f"agreed, {needed} would be needed at least; give more, or a larger margin="
        )


def resolved_runtime(experiment: Experiment) -> str:
    """runtime=auto: compiled where it can be had, else planned."""
    wanted = experiment.settings.runtime
    if wanted != "auto":
        return wanted
    if experiment.device.type == "cuda":
        return "compiled"
    try:
        level = choose_level(build.library())
    except Unavailable:
        return "planned"
    lacking = set(experiment.settings.precisions) - set(level.precisions)
    return "planned" if lacking == {"bf16"} and "int8" not in experiment.settings.precisions else "compiled"


def prepare(experiment: Experiment, say: Say) -> Tuning:
    """Candidates with their schedules, in the runtime that all of them are timed and rolled out in."""
    settings = experiment.settings.replace(runtime=resolved_runtime(experiment))
    experiment = dataclasses.replace(experiment, settings=settings)
    candidates = make_candidates(experiment, settings.methods, settings.precisions, say)
    return Tuning(experiment, candidates, ended=dict(candidates.impossible))


def measure(tuning: Tuning, folder: Path, progress: TuningProgress, say: Say) -> None:
    """Times and distances of all candidates, and the screen's decisions."""
    experiment, candidates = tuning.experiment, tuning.candidates
    settings, record = experiment.settings, folder / "measured.json"
    of = identity_of(tuning)
    of_times = {**of, "timing": settings.timing.to_dict(), "hardware": hardware(experiment.device)}
    of_screen = {**of, "screen": settings.screen.to_dict(), "observations": recorded(experiment)}
    times, screened = recall(record, of_times, "times"), recall(record, of_screen, "screen")
    samplers = None if times and screened else samplers_of(candidates, settings.runtime)
    if times is None:
        rounds, warmup = settings.timing.n_chunks, settings.timing.warmup
        with progress.stage("timing", len(samplers) * (rounds + warmup)) as advance:
            times = measure_times(experiment, samplers, rounds, warmup, advance)
        remember(record, of_times, "times", times)
    if screened is None:
        observations, states = tuning_states(experiment, progress.bar)
        with progress.stage("screening", len(samplers)) as advance:
            distances = measure_distances(experiment, samplers, observations, settings.screen.n_samples, advance)
        screened = {"states": states, "distances": distances}
        remember(record, of_screen, "screen", screened)
    tuning.times, tuning.states, tuning.distances = times, screened["states"], screened["distances"]
    rows = {
        name: Screened(times[name]["ms_p50"], *(distances["relative_energy"][key] for key in ("value", "low", "high")))
        for name, distances in tuning.distances.items()
    }
    slower = {name: Ended("screen", "no faster than the full policy") for name in rows if times[name]["speedup"] <= 1}
    fast = {name: row for name, row in rows.items() if name not in slower}
    tuning.ended |= slower | screen_out(fast, times[FULL]["ms_p50"], settings.screen.max_energy, settings.screen.keep)
    say(f"screen on {tuning.states}: {len(rows)} candidates, {len(going_on(tuning))} go on")


def going_on(tuning: Tuning) -> list[str]:
    return [name for name in tuning.candidates.named if name not in tuning.ended]


def recorded(experiment: Experiment) -> str | None:
    """The recording that is screened on, and its part; None: it is none."""
    recordings, held_out = experiment.recordings, experiment.settings.profiles_observations
    if recordings is None:
        return None
    return recording_kind(recordings.digest, recordings.judged if held_out else range(recordings.total))


def identity_of(tuning: Tuning) -> dict[str, Any]:
    """What everything measured depends on, as JSON values."""
    experiment, settings = tuning.experiment, tuning.experiment.settings
    task = settings.task.to_dict()
    return {
        "task": settings.task.name,
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "checkpoint_sampler": experiment.own_sampler_name,
        "runtime": settings.runtime,
        "device": experiment.device.type,
        "seed": settings.seed,
        "n_action_steps": experiment.policy.n_action_steps,
        "simulation": simulation_settings(task) if experiment.simulated is not None else None,
        "candidates": {name: item.computed.digest for name, item in tuning.candidates.named.items()},
    }


def select(
    tuning: Tuning, folder: Path, progress: TuningProgress, say: Say, beside: RollOutBeside | None = None
) -> None:
    """Successive halving on the selection seeds.

    Args:
        beside: rolls out candidates beside each other; None: one after the other, in this process.
    """
    settings, names = tuning.experiment.settings, going_on(tuning)
    if not names:
        say("no candidate is left to roll out")
        return
    start = settings.selection.start_seed
    block = Block(tuning.candidates, folder / "selection", start, say, progress.episode, beside)
    rounds = settings.selection.rounds
    with progress.stage("selection", expected_episodes(len(names), rounds, settings.selection.keep)):
        tuning.selection = successive_halving(
            {name: tuning.times[name]["ms_p50"] for name in names},
            tuning.times[FULL]["ms_p50"],
            block.play,
            rounds,
            settings.margin,
            settings.alpha,
            settings.certification.looks[-1],
            settings.selection.keep,
            block.prepare,
        )
    tuning.ended |= tuning.selection.ended
    for name, state in tuning.selection.standings.items():
        tuning.behaviours[name] = behaviour(block.results(name, state.n), block.results(FULL, state.n))
    say(f"selection on seeds from {block.start}: {', '.join(tuning.selection.survivors) or 'none'} go on to the proof")


def expected_episodes(candidates: int, rounds: list[int], keep: int) -> int:
    """Episodes of the halving, with those of the full policy."""
    total, done = rounds[-1], 0
    for n in rounds:
        total += candidates * (n - done)
        done, candidates = n, min(candidates, max(keep, -(-candidates // 2)))
    return total


def certify(
    tuning: Tuning, folder: Path, progress: TuningProgress, say: Say, beside: RollOutBeside | None = None
) -> None:
    """The fixed sequence on seeds of its own; `beside` as in `select`."""
    settings = tuning.experiment.settings
    order = tuning.selection.survivors if tuning.selection is not None else []
    if not order:
        return
    looks, n_envs = settings.certification.looks, settings.rollouts.n_envs
    plan = {
        **{name: value for name, value in identity_of(tuning).items() if name != "candidates"},
        "sequence": {name: tuning.candidates[name].computed.digest for name in order},
        "order": order,
        "margin": settings.margin,
        "alpha": settings.alpha,
        "looks": looks,
        "n_envs": n_envs,
    }
    root = folder / "certification"
    place, start, tuning.attempts = certification_block(root, plan, settings.certification.start_seed)
    tuning.certification_start = start
    if tuning.attempts:
        say(f"{tuning.attempts} other sequences were tested before: this one gets fresh seeds, from {start}")
    block = Block(tuning.candidates, place, start, say, progress.episode, beside)
    levels = spending([n / looks[-1] for n in looks], settings.alpha)

    def decided(proof: Proof) -> None:
        outcome = "proven" if proof.passed else "not proven"
        say(f"{proof.name}: {outcome} after {proof.last.n} pairs ({proof.last.verdict})")
        progress.forget(looks[-1] - proof.last.n)

    with progress.stage("certification", (len(order) + 1) * looks[-1]):
        tuning.proofs = fixed_sequence(order, block.play, looks, levels, settings.margin, decided, block.prepare)
    tested = {proof.name: proof for proof in tuning.proofs}
    for name, proof in tested.items():
        tuning.behaviours[name] = behaviour(block.results(name, proof.last.n), block.results(FULL, proof.last.n))
    for name in order:
        if name not in tested:
            tuning.ended[name] = Ended("certification", "not tested: a slower one failed before")
        elif not tested[name].passed:
            tuning.ended[name] = Ended("certification", why_not(tested[name], settings.margin))
        elif name != tuning.chosen:
            tuning.ended[name] = Ended("certification", "proven; a faster one is, too")


def why_not(proof: Proof, margin: float) -> str:
    verdict = proof.last.verdict
    if verdict.result == "refuted":
        return f"worse by more than {margin:g}, as {proof.last.n} pairs show"
    needed = verdict.pairs_needed
    more = f": {needed} may decide" if needed is not None else ""
    return f"not proven with {proof.last.n} pairs{more}"
