"""Folders of the released project: activations, similarity matrices, and the update steps of every module.

    <root>/original/   activations.npz, similarity_matrices.npz, bu_block_selection/block_l1_errors.json, profile.json
    <root>/optimal_steps/<metric>/<module>/optimal_steps_<module>_<budget>_<metric>.json, .txt

`original/optimal_steps` is a link to the second, as the released commands write there. With pickles, what they read as
.pkl is there, too.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bac.bua import error_scores
from bac.profile_matrices import Profile, ProfileInfo
from bac.schedule import Schedule
from bac.similarity import METRICS
from bac_workbench.released.names import module_of, modules_of, scored_name
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path, write_json

ORIGINAL, STEPS, INFO = "original", "optimal_steps", "profile.json"
ERRORS = Path("bu_block_selection", "block_l1_errors.json")


def steps_file(folder: Path, module: str, budget: int, metric: str) -> Path:
    """Of one module, in the folder of a metric."""
    return folder / module / f"optimal_steps_{module}_{budget}_{metric}.json"


def write_folder(
    root: Path,
    profile: Profile,
    description: Mapping[str, Any],
    activations: Mapping[str, np.ndarray],
    schedules: Mapping[tuple[str, int], Schedule],
    pickles: bool,
) -> None:
    """Writes everything; `profile.json`, which makes it count, comes last.

    Args:
        description: what it is of, see `describe`.
        activations: block -> float32 [K, 1, T, D].
        schedules: (metric, budget) -> the block-wise schedule, before any repair.
        pickles: also write the .pkl files that the released code reads.
    """
    original = root / ORIGINAL
    original.mkdir(parents=True, exist_ok=True)
    (original / INFO).unlink(missing_ok=True)
    named = {module: block for block in profile.blocks for module in modules_of(block)}
    matrices = {
        module: {metric: profile.matrices[metric][block] for metric in METRICS} for module, block in named.items()
    }
    save_arrays(original / "activations.npz", {module: activations[block] for module, block in named.items()})
    save_arrays(
        original / "similarity_matrices.npz",
        {
            f"{module}|{metric}": matrix.astype(np.float32)
            for module, by_metric in matrices.items()
            for metric, matrix in by_metric.items()
        },
    )
    errors = {scored_name(block): score for block, score in error_scores(profile.matrices["l1"]).items()}
    write_json(original / ERRORS, errors)
    link = original / STEPS
    if not link.is_symlink() and not link.exists():
        link.symlink_to(Path("..", STEPS), target_is_directory=True)
    for (metric, budget), schedule in schedules.items():
        for module, block in named.items():
            steps = schedule.update_steps[block]
            path = steps_file(root / STEPS / metric, module, budget, metric)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"metric": metric, "steps": steps, "num_steps": len(steps)}, indent=2) + "\n")
            path.with_suffix(".txt").write_text(as_text(metric, steps))
            if pickles:
                save_pickle(path.with_suffix(".pkl"), steps)
    if pickles:
        tensors = {module: list(torch.from_numpy(activations[block])) for module, block in named.items()}
        save_pickle(original / "activations.pkl", tensors)
        save_pickle(original / "similarity_matrices.pkl", matrices)
        save_pickle((original / ERRORS).with_suffix(".pkl"), errors)
    write_json(original / INFO, dict(description))


def as_text(metric: str, steps: Sequence[int]) -> str:
    rows = [" ".join(map(str, steps[start : start + 10])) for start in range(0, len(steps), 10)]
    head = [f"# Similarity metric: {metric}", f"# Number of steps: {len(steps)}", "# Optimal cache steps:"]
    return "\n".join([*head, *rows]) + "\n"


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def save_pickle(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file)


def describe(info: ProfileInfo, episode_seed: int, noise_seed: int) -> dict[str, Any]:
    """The content of profile.json: of which profile the schedules are, and of which denoising the activations."""
    return {**info.to_dict(), "activations": {"episode_seed": episode_seed, "noise_seed": noise_seed}}


def read_description(root: Path) -> dict[str, Any] | None:
    """The profile.json of a folder; None: the released code wrote it, or nobody.

    Raises:
        ConfigError: it is damaged.
    """
    path = root / ORIGINAL / INFO
    return read_json(path, dict) if path.exists() else None


def read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, kind):
            raise ValueError(f"it holds no {kind.__name__}")
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path} is damaged ({error}): make it again with --force_recompute") from error
    return content


def root_of(folder: Path) -> Path:
    """The folder of the task, of assets/can_ph/optimal_steps/cosine or assets/can_ph/original/optimal_steps/cosine."""
    root = folder.resolve().parents[1]
    return root.parent if root.name == ORIGINAL else root


def read_steps(folder: Path, metric: str, budget: int, blocks: Sequence[str], steps: int) -> dict[str, list[int]]:
    """The update steps of every block, from the folder of a metric.

    Args:
        blocks, steps: of the model and its sampler.

    Raises:
        ConfigError: they are not there, or of another model or metric; the message says what to do.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"--optimal_steps_dir {folder}: there is no such folder; "
            "diffusion_policy/activation_utils/get_optimal_cache_update_steps.py writes it"
        )
    if folder.name in METRICS and folder.name != metric:
        raise ConfigError(f"--optimal_steps_dir {folder} is of metric {folder.name}: add --metric {folder.name}")
    check_modules(folder, blocks)
    if budget > steps:
        raise ConfigError(f"--num_caches {budget} is not possible: use 1 to {steps}, the sampler's number of steps")
    found = {}
    for block in blocks:
        path = steps_file(folder, module_of(block), budget, metric)
        if not path.exists():
            raise ConfigError(f"{path} is missing: {budgets_there(folder, module_of(block), metric)}")
        found[block] = checked_steps(path, read_json(path, dict), budget, steps)
    return found


def check_modules(folder: Path, blocks: Sequence[str]) -> None:
    """Whether the folder is of a model with these blocks."""
    there = {path.name for path in folder.iterdir() if path.is_dir() and ".dropout" in path.name}
    expected = {module_of(block) for block in blocks}
    if there == expected:
        return
    if not there:
        below = sorted(path.name for path in folder.iterdir() if path.is_dir())
        hint = f"; below it are {', '.join(below[:6])}" if below else ""
        raise ConfigError(f"--optimal_steps_dir {folder} holds no update steps{hint}: name .../optimal_steps/<metric>")
    raise ConfigError(
        f"--optimal_steps_dir {folder} is of another model: it has steps of {len(there)} modules "
        f"({min(there)} ... {max(there)}), this one has {len(expected)}"
    )


def budgets_there(folder: Path, module: str, metric: str) -> str:
    names = [path.stem.split("_") for path in (folder / module).glob(f"optimal_steps_*_{metric}.json")]
    there = sorted(int(parts[-2]) for parts in names if parts[-2].isdecimal())
    return f"--num_caches can be {', '.join(map(str, there))} here" if there else "there are no steps of this metric"


def checked_steps(path: Path, content: dict[str, Any], budget: int, steps: int) -> list[int]:
    chosen = content.get("steps")
    valid = isinstance(chosen, list) and all(type(step) is int for step in chosen)
    if not valid or chosen != sorted(set(chosen)) or chosen[:1] != [0] or len(chosen) != budget:
        raise ConfigError(f"{path} does not hold {budget} ascending steps from 0 on: make it again")
    if chosen[-1] >= steps:
        raise ConfigError(
            f"{path} is of another sampler: it has step {chosen[-1]}, and this one steps 0 to {steps - 1}"
        )
    return chosen


def read_errors(root: Path, blocks: Sequence[str]) -> dict[str, float]:
    """Block -> caching error, which says what is repaired.

    Raises:
        ConfigError: they are not there, or of another model.
    """
    path = root / ORIGINAL / ERRORS
    if not path.exists():
        raise ConfigError(
            f"--num_bu_blocks needs the errors of the blocks, and {path} is not there: "
            "make the folder with get_optimal_cache_update_steps.py of this project, or use --num_bu_blocks 0"
        )
    stored = read_json(path, dict)
    names = {block: scored_name(block) for block in blocks}
    if set(stored) != set(names.values()) or not all(isinstance(value, float) for value in stored.values()):
        raise ConfigError(f"{path} is of another model, or damaged: make it again with --force_recompute")
    return {block: stored[name] for block, name in names.items()}
