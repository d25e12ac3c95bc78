"""The schedule a cache config asks for: read from the assets, or built from a profile that is measured if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bac.acs import OBJECTIVES, blockwise_acs, unified_acs
from bac.bua import bac
from bac.denoiser import model_blocks
from bac.profiling import Profile
from bac.provenance import Provenance
from bac.schedule import Schedule, ScheduleError
from bac.similarity import METRICS
from bac.uniform import uniform
from bac_workbench.profiling.assets import Assets
from bac_workbench.profiling.pictures import DEFAULT_TOP_K
from bac_workbench.profiling.profile_settings import USUAL, of_schedule, other_identity, read_info, same_origin
from bac_workbench.profiling.profiles import Say, profile_for
from bac_workbench.setup.experiment import Experiment
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import locked

METHODS = ("full", "uniform", "unified_acs", "blockwise_acs", "bac")


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
        label += "".join(f"_r{step}" for step in forced_refresh(cache))
    return label


def forced_refresh(cache: DictConfig) -> tuple[int, ...]:
    """The steps at which every block updates in addition, ascending."""
    steps = cache.get("forced_refresh") or ()
    listed = list(steps) if not isinstance(steps, (str, int, float)) else [steps]
    if any(type(step) is not int or step < 0 for step in listed) or len(set(listed)) < len(listed):
        raise ConfigError(f"cache.forced_refresh={steps} is not possible: use a list of steps, each once, such as [99]")
    return tuple(sorted(listed))


def check_cache(cache: DictConfig, blocks: Sequence[str], steps: int) -> str:
    """The label of a cache config that is possible for a model and sampler.

    Raises:
        ConfigError: it is not; the message gives the range.
    """
    label = cache_label(cache)
    if cache.method == "full":
        return label
    if type(cache.budget) is not int or not 1 <= cache.budget <= steps:
        raise ConfigError(
            f"cache.budget={cache.budget} is not possible: use 1 to {steps}, the sampler's number of steps"
        )
    if cache.method == "bac":
        if type(cache.top_k) is not int or not 0 <= cache.top_k <= len(blocks):
            raise ConfigError(
                f"cache.top_k={cache.top_k} is not possible: use 0 to {len(blocks)}, the model's number of blocks"
            )
        if (refresh := forced_refresh(cache)) and refresh[-1] >= steps:
            raise ConfigError(f"cache.forced_refresh={list(refresh)} is not possible: use steps from 0 to {steps - 1}")
    elif forced_refresh(cache):
        raise ConfigError(f"cache.forced_refresh is an option of cache=bac: {cache.method} has none")
    return label


def schedule_for(
    experiment: Experiment, cache: DictConfig, say: Say = print, usual: Mapping[str, Any] = USUAL
) -> Schedule | None:
    """The schedule of a cache config; None for the full policy.

    Raises:
        ConfigError, ScheduleError: the config asks for something impossible, or a stored schedule is not what its name says.
    """
    blocks, steps = model_blocks(experiment.policy.model), experiment.base.num_inference_steps
    label = check_cache(cache, blocks, steps)
    if cache.method == "full":
        return None
    if cache.method == "uniform":
        return uniform(blocks, steps, cache.budget)
    assets = Assets(experiment)
    if (path := stored_schedule(assets, label)) is not None:
        say(f"schedule: {path}")
        return checked(Schedule.load(path), path, cache, experiment)
    profile, folder = profile_for(experiment, say, dict(usual))
    schedule = build_schedule(profile, cache)
    target = assets.writable(profile.info)
    path = target / "schedules" / f"{label}.json"
    with locked(target, f"writing {path.name} of {experiment.cfg.task.name}"):
        if path.exists():  # written by another process meanwhile, or not what its name says
            return checked(Schedule.load(path), path, cache, experiment)
        schedule.save(path)
    say(f"schedule: {path} (built from {folder / 'profile.npz'})")
    return schedule


def stored_schedule(assets: Assets, label: str) -> Path | None:
    """Where a schedule of that name is which was made for this checkpoint and sampler, from a profile as asked for.

    Raises:
        ScheduleError: it lies beside such a profile but was not made from it.
    """
    for folder in assets.folders():
        path, info = folder / "schedules" / f"{label}.json", read_info(folder)
        if not path.exists() or (info is not None and not assets.is_mine(info)):
            continue
        origin = of_schedule(Schedule.load(path))
        if info is None and assets.is_mine(origin) or info is not None and same_origin(origin, info):
            return path
        if info is not None:
            differs = other_identity(origin, assets.experiment)
            for name in ("observations", "noise_seeds", "source"):
                if getattr(origin, name) != getattr(info, name):
                    differs.append(
                        f"{name} {getattr(origin, name)} there, {getattr(info, name)} in {folder / 'profile.json'}"
                    )
            raise ScheduleError(
                f"{path} was not made from the profile beside it ({'; '.join(differs)}). It is left as it is: move it away, after "
                "which it is made anew, or use another assets_dir="
            )
    return None


def checked(schedule: Schedule, path: Path, cache: DictConfig, experiment: Experiment) -> Schedule:
    """`schedule`, if it is of this model and what the cache config says.

    Raises:
        ScheduleError: it is not, whatever its name.
    """
    schedule.check_fits(
        model_blocks(experiment.policy.model), experiment.base.num_inference_steps, experiment.loaded.hash
    )
    origin = schedule.provenance
    wanted: dict[str, Any] = {
        "method": cache.method,
        "budget": cache.budget,
        "metric": cache.metric,
        "objective": cache.objective,
    }
    if cache.method == "bac":
        wanted |= {"top_k": cache.top_k, "forced_refresh": forced_refresh(cache)}
    wrong = [
        f"{name} {getattr(origin, name)} instead of {value}"
        for name, value in wanted.items()
        if getattr(origin, name) != value
    ]
    if not wrong:
        if cache.method == "bac" and len(origin.repaired) != cache.top_k:
            wrong.append(f"{len(origin.repaired)} repaired blocks instead of {cache.top_k}")
        most = cache.budget + len(origin.forced_refresh)
        wrong += [
            f"{count} updates of {block} instead of {cache.budget}"
            for block, count in schedule.updates_per_block.items()
            if not (cache.budget <= count and (block in origin.repaired or count <= most))
        ]
    if wrong:
        raise ScheduleError(
            f"{path} is not what its name says ({'; '.join(wrong[:4])}). It is left as it is: move it away, after which it is "
            "made anew, or use another assets_dir="
        )
    return schedule


def build_schedule(profile: Profile, cache: DictConfig) -> Schedule:
    """Runs the chosen method on a profile."""
    info = profile.info
    provenance = Provenance(
        checkpoint_hash=info.checkpoint_hash,
        weights=info.weights,
        observations=info.observations,
        seeds=info.noise_seeds,
        sampler=info.sampler,
        sampler_steps=info.steps,
        extras={"observations_from": info.source},
    )
    matrices, budget = profile.matrices[cache.metric], cache.budget
    if cache.method == "unified_acs":
        return unified_acs(matrices, budget, cache.metric, cache.objective, provenance=provenance)
    if cache.method == "blockwise_acs":
        return blockwise_acs(matrices, budget, cache.metric, cache.objective, provenance=provenance)
    return bac(
        matrices,
        profile.matrices["l1"],
        budget,
        cache.top_k,
        cache.metric,
        cache.objective,
        forced_refresh=forced_refresh(cache),
        provenance=provenance,
    )
