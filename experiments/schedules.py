"""The schedule a cache config asks for: read from the assets, or built from a profile that is measured if need be."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich.progress import Progress

from bac.accelerate import accelerate
from bac.acs import OBJECTIVES, blockwise_acs, unified_acs
from bac.bua import bac, bubbling_union, error_scores
from bac.denoiser import model_blocks
from bac.figures import plot_errors, plot_schedule, plot_similarity
from bac.profiling import Profile, ProfileInfo, profile_features
from bac.provenance import Provenance
from bac.schedule import Schedule
from bac.similarity import METRICS
from bac.uniform import uniform
from diffusion_policy.common.config import ConfigError
from diffusion_policy.env_runner.episodes import Episode
from diffusion_policy.env_runner.observation import Observation, apply, stack
from diffusion_policy.env_runner.rollout import rollout
from experiments.acting import acting, as_tensors
from experiments.setup import Experiment

METHODS = ("full", "uniform", "unified_acs", "blockwise_acs", "bac")
DEFAULT_TOP_K = 5


def cache_label(cache: DictConfig) -> str:
    """Short name of a cache config, part of file names: full, uniform_s10, bac_s10, bac_s7_l1_k3, ..."""
    if cache.method not in METHODS:
        raise ConfigError(f"cache.method={cache.method} is unknown: use {', '.join(METHODS)}")
    if cache.method == "full":
        return "full"
    label = f"{cache.method}_s{cache.budget}"
    if cache.method == "uniform":
        return label
    if cache.metric not in METRICS:
        raise ConfigError(f"cache.metric={cache.metric} is unknown: use {', '.join(METRICS)}")
    if cache.objective not in OBJECTIVES:
        raise ConfigError(f"cache.objective={cache.objective} is unknown: use {', '.join(OBJECTIVES)}")
    label += "" if cache.metric == "cosine" else f"_{cache.metric}"
    label += "" if cache.objective == "cached_to_skipped" else f"_{cache.objective}"
    if cache.method == "bac":
        label += "" if cache.top_k == DEFAULT_TOP_K else f"_k{cache.top_k}"
        label += "".join(f"_r{step}" for step in cache.get("forced_refresh") or ())
    return label


def assets_folder(experiment: Experiment) -> Path:
    """Where this checkpoint's profile and schedules are kept.

    assets/<task> (assets/<task>/<sampler> for others than ddpm100) belongs to the first checkpoint profiled there;
    every further checkpoint gets a folder named by its hash, so that nobody's schedules are overwritten.
    """
    cfg = experiment.cfg
    folder = Path(cfg.assets_dir) / cfg.task.name
    if experiment.sampler != "ddpm100":
        folder = folder / experiment.sampler
    info = Profile.read_info(folder)
    if info is None or info.checkpoint_hash == experiment.loaded.hash:
        return folder
    return folder / experiment.loaded.hash[:12]


def schedule_for(experiment: Experiment, cache: DictConfig, say=print) -> Schedule | None:
    """The schedule of a cache config; None for the full policy.

    Raises:
        ConfigError, ValueError: the config asks for something impossible (budget, metric, top_k, ...).
    """
    label = cache_label(cache)
    if cache.method == "full":
        return None
    blocks, steps = model_blocks(experiment.policy.model), experiment.base.num_inference_steps
    if not 1 <= int(cache.budget) <= steps:
        raise ConfigError(f"cache.budget={cache.budget} is not possible: use 1 to {steps}, the sampler's number of steps")
    if cache.method == "uniform":
        return uniform(blocks, steps, int(cache.budget))
    if cache.method == "bac" and not 0 <= int(cache.top_k) <= len(blocks):
        raise ConfigError(f"cache.top_k={cache.top_k} is not possible: use 0 to {len(blocks)}, the model's number of blocks")
    folder = assets_folder(experiment)
    path = folder / "schedules" / f"{label}.json"
    if path.exists():
        schedule = Schedule.load(path)
        if schedule.provenance.checkpoint_hash == experiment.loaded.hash and schedule.steps == steps:
            schedule.check_fits(blocks, steps, experiment.loaded.hash)
            say(f"schedule: {path}")
            return schedule
        say(f"{path} is for another checkpoint or number of steps: it is made anew")
    profile = profile_for(experiment, folder, say)
    schedule = build_schedule(profile, cache, experiment)
    schedule.save(path)
    say(f"schedule: {path} (built from {folder / 'profile.npz'})")
    return schedule


def build_schedule(profile: Profile, cache: DictConfig, experiment: Experiment) -> Schedule:
    """Runs the chosen method on a profile."""
    info = profile.info
    provenance = Provenance(
        checkpoint_hash=info.checkpoint_hash, weights=info.weights, observations=info.observations, seeds=info.noise_seeds,
        sampler=info.sampler, sampler_steps=info.steps, extras={"observations_from": info.source},
    )
    matrices, budget = profile.matrices[cache.metric], int(cache.budget)
    if cache.method == "unified_acs":
        return unified_acs(matrices, budget, cache.metric, cache.objective, provenance=provenance)
    if cache.method == "blockwise_acs":
        return blockwise_acs(matrices, budget, cache.metric, cache.objective, provenance=provenance)
    refresh = tuple(int(step) for step in cache.get("forced_refresh") or ())
    return bac(matrices, profile.matrices["l1"], budget, int(cache.top_k), cache.metric, cache.objective,
               forced_refresh=refresh, provenance=provenance)


def profile_for(experiment: Experiment, folder: Path, say=print) -> Profile:
    """The stored profile of this checkpoint and sampler, or a new one."""
    info = Profile.read_info(folder)
    if info is not None and info.checkpoint_hash == experiment.loaded.hash and info.steps == experiment.base.num_inference_steps:
        return Profile.load(folder)
    say(f"no profile fits checkpoint {experiment.loaded.hash[:12]} with {experiment.sampler}: profiling now, once")
    return measure_profile(experiment, folder)


def measure_profile(experiment: Experiment, folder: Path) -> Profile:
    """Profiles the policy on states it visits itself, and stores matrices, error scores and pictures in `folder`."""
    settings = experiment.cfg.profile
    policy, seeds = experiment.policy, tuple(int(s) for s in settings.noise_seeds)
    with Progress(transient=True) as bar:
        observations = visited_observations(experiment, bar)
        cond, condition, given = sampler_inputs(policy, observations)
        job = bar.add_task("profiling block features", total=len(condition) * len(seeds))
        matrices = profile_features(
            experiment.base, cond, condition, given, seeds, int(settings.batch_size),
            lambda done, total: bar.update(job, completed=done),
        )
    info = ProfileInfo(
        experiment.loaded.hash, experiment.loaded.weights, experiment.sampler, experiment.base.num_inference_steps, len(condition), seeds,
        f"rollouts of the full policy from seeds {settings.seed_start}..{settings.seed_start + settings.n_episodes - 1}",
    )
    profile = Profile(info, matrices)
    profile.save(folder)
    draw_profile(profile, folder)
    return profile


def draw_profile(profile: Profile, folder: Path) -> None:
    """Pictures of a profile under figures/: similarity, error scores and the default BAC schedule."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    plot_similarity(profile.matrices["cosine"], figures / "similarity_cosine.png", "cosine")
    scores = error_scores(profile.matrices["l1"])
    budget = min(10, profile.info.steps)
    base = blockwise_acs(profile.matrices["cosine"], budget)
    repaired = bubbling_union(base, scores, min(DEFAULT_TOP_K, len(scores)))
    plot_errors(scores, figures / "block_errors.png", selected=repaired.provenance.repaired)
    plot_schedule(repaired, figures / f"schedule_bac_s{budget}.png", base=base)


def visited_observations(experiment: Experiment, bar: Progress) -> Observation:
    """Observations [N, To, Do] (or [N, To, ...] by name) spread evenly over rollouts of the full policy."""
    settings, task, policy = experiment.cfg.profile, experiment.task, experiment.policy
    n = int(settings.n_episodes)
    episodes = [Episode(i, int(settings.seed_start) + i, "train") for i in range(n)]
    job = bar.add_task("rolling out the full policy", total=n)
    seen: list[Observation] = []

    with accelerate(policy) as fast, task.vector_env(n, None if task.one_env_per_process else 0) as env:
        full_policy = acting(fast.predict_action, int(settings.seed_start))

        def act(obs, active, running, chunk_index):
            seen.extend(apply(lambda batch, slot=slot: batch[slot], obs) for slot in np.flatnonzero(active))
            return full_policy(obs, active, running, chunk_index)

        rollout(act, env, episodes, on_episode=lambda result: bar.advance(job))
    keep = np.linspace(0, len(seen) - 1, min(int(settings.n_observations), len(seen))).round().astype(int)
    return stack([seen[i] for i in keep])


def sampler_inputs(policy, observations: Observation):
    """Observations [N, To, Do] (or [N, To, ...] by name) -> (cond, condition, given) as `policy.sampler` takes them."""
    condition, given, cond = policy.sampler_inputs(as_tensors(observations))
    return cond, condition, given
