"""Readers of checkpoints, schedules, profiles, results and settings, as the product calls them, with sound files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stress import samples
from stress.fuzz import pickles


def read_pickle(path: Path) -> Any:
    from diffusion_policy.common.restricted_unpickler import restricted_loads

    return restricted_loads(path.read_bytes(), "the file")


def write_pickle(folder: Path) -> Path:
    (folder / "a.pkl").write_bytes(pickles.sample())
    return folder / "a.pkl"


def write_checkpoint_pickle(folder: Path) -> Path:
    """The pickle of a whole checkpoint, without its tensors."""
    import zipfile

    with zipfile.ZipFile(samples.original_checkpoint(folder)) as archive:
        content = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    (folder / "latest.ckpt").unlink()
    (folder / "checkpoint.pkl").write_bytes(content)
    return folder / "checkpoint.pkl"


def read_policy(path: Path) -> Any:
    """Loads, and lets what was accepted act once: what cannot act must not be accepted."""
    import torch

    from diffusion_policy.common.checkpoint import load_policy
    from diffusion_policy.common.config import CheckpointError, ConfigError

    loaded = load_policy(path)
    observation = loaded.policy.random_observation(1, torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            loaded.policy.predict_action(observation, torch.Generator().manual_seed(0))
    except (ConfigError, ValueError, FloatingPointError) as error:
        # A flipped exponent of a weight may make actions overflow, one of a normalizer inputs; both have errors.
        if "finite" not in str(error) and "once normalised" not in str(error):
            raise
        raise CheckpointError(str(error)) from error
    return loaded


def read_training_state(path: Path) -> Any:
    import torch

    from diffusion_policy.workspace.training_state import read_progress, read_state

    read_state(path, *samples.training(), torch.device("cpu"))
    return read_progress(path)


# ---- schedules, profiles, evaluations ----
def read_schedule(path: Path) -> Any:
    from bac.schedule import Schedule

    schedule = Schedule.load(path)
    return str(schedule), schedule.digest, repr(schedule), schedule.update_steps


def read_profile(path: Path) -> Any:
    from bac.profile_matrices import Profile

    return Profile.load(path)


def read_episodes(path: Path) -> Any:
    from diffusion_policy.env_runner.episodes import load_episodes

    return load_episodes(path / "episodes.jsonl")


def resume_evaluation(path: Path) -> Any:
    from bac_workbench.evaluation.folder import resume
    from diffusion_policy.env_runner.episodes import Episode

    episodes = [Episode(row.index, row.seed, row.split) for row in samples.episode_rows()]
    return resume(path, dict(samples.SETTINGS), episodes, False, lambda text: None)


def compare_evaluations(path: Path) -> Any:
    from bac_workbench.evaluation.comparison import compare
    from bac_workbench.evaluation.comparison_tables import comparison_tables

    comparison = compare(path)
    return comparison_tables(comparison.rows)


def write_command_line(folder: Path) -> Path:
    lines = (
        "cache: bac",
        "cache.budget: 7",
        "sampler.type: ddim",
        "sampler.steps: 8",
        "eval.n_test: 4",
        "eval.n_envs: 2",
        "seed: 0",
        "device: cpu",
        "profile.noise_seeds: [0,1]",
        "benchmark.n_chunks: 0",
        "output_dir: results/x",
        "task.environment.max_steps: 24",
        "runtime: planned",
    )
    (folder / "settings.yaml").write_text("\n".join(lines))
    return folder / "settings.yaml"


def check_settings(path: Path) -> Any:
    """Lines `name: value`, as `name=value` of an evaluation."""
    from bac_workbench.settings.launch import check_command_line

    lines = path.read_text(errors="replace").split("\n")
    return check_command_line(["task=pusht_lowdim", *(line.replace(": ", "=", 1) for line in lines if line)], "eval")
