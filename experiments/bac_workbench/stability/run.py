"""The study from start to end: chains, schedules, errors of actions, and, where asked for, paired episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from bac.schedule import Schedule
from bac_workbench.evaluation.evaluate import roll_out
from bac_workbench.evaluation.folder import evaluation_settings, resume
from bac_workbench.evaluation.statistics import paired_difference, score_interval
from bac_workbench.provenance import environment
from bac_workbench.replacing import refuse_another
from bac_workbench.settings.evaluation import Evaluation
from bac_workbench.settings.methods import named_cache
from bac_workbench.setup.experiment import Experiment
from bac_workbench.stability.measure import Chains, action_errors, measure_chains, visited
from bac_workbench.stability.numbers import correlations, likeness, schedule_of
from bac_workbench.stability.report import draw, summary
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json
from diffusion_policy.common.lock import locked
from diffusion_policy.env_runner.task import Seeds

Say = Callable[[str], None]
DESCRIPTION, SCHEDULES, ROLLOUTS = "stability.json", "schedules", "rollouts"
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A schedule, and how many chains it is made from: their observations and noise seeds by their places."""

    name: str
    observations: list[int]
    seeds: list[int]
    schedule: Schedule


def study(experiment: Experiment, say: Say = print) -> Path:
    """Measures and writes everything; returns the folder.

    Raises:
        ConfigError: the folder holds another study, or the settings ask for too many observations.
        LockedError: another process writes to the folder.
    """
    settings, profiled = experiment.settings, experiment.settings.profile
    of_each = profiled.n_observations // profiled.n_episodes
    folder = Path(settings.output_dir or Path("results") / settings.task.name / "stability").expanduser()
    asked = asked_of(experiment)
    if settings.budget > experiment.steps:
        raise ConfigError(f"budget={settings.budget}: use 1 to {experiment.steps}, the sampler's number of steps")
    with locked(folder, f"study of {settings.task.name}"):
        check_folder(folder, asked, settings.overwrite)
        with Progress(transient=True) as bar:
            inputs, episodes = visited(experiment, profiled.seed_start, profiled.n_episodes, of_each, bar)
            chains = measure_chains(experiment.sampler, inputs, episodes, profiled.noise_seeds, bar)
        say(f"{len(episodes)} observations of {profiled.n_episodes} episodes, noise seeds {profiled.noise_seeds}")
        if len(episodes) < of_each * profiled.n_episodes:
            say(
                f"{profiled.n_observations} were asked for: some episodes have fewer than {of_each} chunks; of more of "
                "them (profile.n_episodes) fewer are taken"
            )
        variants = variants_of(chains, settings.budget, settings.top_k, settings.draws)
        with Progress(transient=True) as bar:
            start = profiled.seed_start + profiled.n_episodes
            held_out, _ = visited(experiment, start, settings.held_out, of_each, bar)
            schedules = [variant.schedule for variant in variants]
            errors = action_errors(experiment, schedules, held_out, profiled.noise_seeds, bar, profiled.batch_size)
        correlated = correlations(chains)
        found = described(chains, variants, errors, correlated, settings.budget, settings.top_k)
        for variant in variants:
            variant.schedule.save(folder / SCHEDULES / f"{variant.name}.json")
        provenance = environment(experiment.device, settings.threads or 1)
        write_json(folder / DESCRIPTION, {"asked": asked, **found, "provenance": provenance})
        if settings.rollouts.n_test:  # they are resumed, all before is measured again
            found["scores"] = scores(experiment, variants, folder / ROLLOUTS, say)
            write_json(folder / DESCRIPTION, {"asked": asked, **found, "provenance": provenance})
        draw(folder, found, correlated, chains.blocks)
    for line in summary(found):
        say(line)
    say(f"numbers: {folder / DESCRIPTION}, picture: {folder / 'stability.png'}")
    return folder


def asked_of(experiment: Experiment) -> dict[str, Any]:
    """What decides the numbers."""
    settings = experiment.settings
    profiled = ("n_episodes", "seed_start", "n_observations", "noise_seeds")
    return {
        "task": settings.task.name,
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "sampler": experiment.sampler_name,
        **{name: getattr(settings.profile, name) for name in profiled},
        **{name: getattr(settings, name) for name in ("budget", "top_k", "draws", "held_out")},
        "rollouts": {name: getattr(settings.rollouts, name) for name in ("n_test", "start_seed")},
    }


def check_folder(folder: Path, asked: dict[str, Any], overwrite: bool) -> None:
    """Refuses a folder with another study unless it may be replaced.

    Raises:
        ConfigError: it holds one.
    """
    if not overwrite:
        refuse_another(folder / DESCRIPTION, "asked", asked, "study")


def variants_of(chains: Chains, budget: int, top_k: int, draws: int, seed: int = 0) -> list[Variant]:
    """Schedules from all chains, from single ones, and from four observations with one noise seed each time."""
    n, s = len(chains.episodes), len(chains.noise_seeds)
    random = np.random.default_rng(seed)
    everything = list(range(n)), list(range(s))
    made = [Variant(ALL, *everything, schedule_of(chains, *everything, budget, top_k))]
    for size in dict.fromkeys(min(size, n) for size in (1, 4)):
        for draw_number in range(draws):
            observations = sorted(random.choice(n, size, replace=False).tolist())
            seeds = [int(random.integers(s))]
            name = f"{size}_observation{'s' if size > 1 else ''}-{draw_number}"
            made.append(Variant(name, observations, seeds, schedule_of(chains, observations, seeds, budget, top_k)))
    return made


def described(
    chains: Chains,
    variants: list[Variant],
    errors: list[float],
    correlated: dict[str, np.ndarray],
    budget: int,
    top_k: int,
) -> dict[str, Any]:
    """Everything that was found, as JSON values."""
    with np.errstate(invalid="ignore"):
        maps = {
            kind: {
                "pairs": len(values),
                "median": _rounded(np.nanmedian(values)) if values.size else None,
                "low_5": _rounded(np.nanpercentile(values, 5)) if values.size else None,
                "worst_block": chains.blocks[int(np.argmin(np.nanmedian(values, axis=0)))] if values.size else None,
            }
            for kind, values in correlated.items()
        }
    rows = [
        {
            "name": variant.name,
            "observations": len(variant.observations),
            "noise_seeds": len(variant.seeds),
            "updates": variant.schedule.update_count,
            "action_error": _rounded(error, 6),
            **likeness(chains, variant.observations, variant.seeds, budget, top_k).to_dict(),
        }
        for variant, error in zip(variants, errors)
    ]
    return {
        "observations": len(chains.episodes),
        "episodes": len(set(chains.episodes.tolist())),
        "noise_seeds": list(chains.noise_seeds),
        "top_k": top_k,
        "correlations": maps,
        "schedules": rows,
    }


def _rounded(value: float, digits: int = 4) -> float:
    return round(float(value), digits)


def scores(experiment: Experiment, variants: list[Variant], folder: Path, say: Say) -> dict[str, Any]:
    """Score of each schedule over the same episodes, and its paired difference to that of all chains."""
    settings = experiment.settings
    wanted, start = settings.rollouts.n_test, settings.rollouts.start_seed
    counted = Evaluation(
        n_test=wanted,
        n_train=0,
        n_envs=settings.rollouts.n_envs,
        n_workers=settings.rollouts.n_workers,
        overlap="auto",
        n_videos=0,
        clock="stopped",
        thinking="stop",
        latency_ms=None,
    )
    task = settings.task.replace(seeds=settings.task.seeds.replace(test_start_seed=start))
    acting = dataclasses.replace(
        experiment.with_cache(named_cache("bac", budget=settings.budget, top_k=settings.top_k)),
        settings=settings.replace(task=task, eval=counted, precision="fp32"),
        simulated=dataclasses.replace(experiment.task, seeds=Seeds(n_test=wanted, test_start_seed=start)),
    )
    episodes, played = acting.task.episodes(), {}
    for variant in variants:
        place = folder / variant.name
        place.mkdir(parents=True, exist_ok=True)
        facts = evaluation_settings(acting, variant.schedule, episodes)
        _, done = resume(place, facts, episodes, settings.overwrite, say)
        todo = [episode for episode in episodes if episode.index not in {result.index for result in done}]
        if todo:
            fresh, _ = roll_out(acting, variant.schedule, todo, episodes, place, None)
            done = sorted([*done, *fresh], key=lambda result: result.index)
        played[variant.name] = [result.score for result in done]
        say(f"{variant.name}: mean score {np.mean(played[variant.name]):.3f} over {len(done)} episodes")
    rows = {}
    for name, own in played.items():
        score = score_interval(own)
        rows[name] = {"mean": _rounded(score.mean), "interval_95": [_rounded(score.low), _rounded(score.high)]}
        rows[name]["scores"] = [_rounded(value) for value in own]  # in the order of the environment seeds
        if name != ALL:
            apart = paired_difference(own, played[ALL])
            rows[name]["difference"] = [_rounded(value) for value in (apart.mean, apart.low, apart.high)]
    return {"episodes": wanted, "start_seed": start, "by_schedule": rows}
