"""Writing any loadable checkpoint in this project's form: policy.safetensors and config.yaml, no pickle."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from diffusion_policy.common.checkpoint import LoadedPolicy, load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import remove_leftover_folders, temporary_name
from diffusion_policy.common.lock import locked_output
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE, save_policy


def convert(
    checkpoint: str | Path, output: str | Path, weights: str = "ema", half: bool = True, overwrite: bool = False
) -> LoadedPolicy:
    """Loads, writes beside `output`, loads what was written, and only then puts it in place; other files there stay."""
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output={output} is a file: name a folder")
    with locked_output(output, f"conversion of {Path(checkpoint).name}"):
        return _convert(checkpoint, output, weights, half, overwrite)


def _convert(checkpoint: str | Path, output: Path, weights: str, half: bool, overwrite: bool) -> LoadedPolicy:
    taken = f"output={output} holds a checkpoint: choose another folder, or replace it with overwrite=true"
    if not overwrite and (output / CONFIG_FILE).exists():
        raise ConfigError(taken)
    loaded = load_policy(checkpoint, weights)
    if not overwrite and (output / WEIGHTS_FILE).exists() and not _is_unfinished(output / WEIGHTS_FILE, loaded):
        raise ConfigError(taken)
    print(f"loaded  {loaded}")
    if half:
        stored_half = [value for name, value in loaded.policy.named_parameters() if not name.startswith("normalizer.")]
        largest = max(value.abs().max().item() for value in stored_half if value.numel())
        if largest > torch.finfo(torch.float16).max:
            raise ConfigError(f"a weight of {largest:.3g} does not fit half precision: use half=false")
    metadata = {"weights": weights, "source": loaded.source.name, "source_hash": loaded.hash}
    if loaded.step is not None:
        metadata["step"] = str(loaded.step)
    remove_leftover_folders(output)
    staging = temporary_name(output)
    try:
        save_policy(staging, loaded.policy, loaded.config, metadata, half)
        written = load_policy(staging, weights)
        output.mkdir(parents=True, exist_ok=True)
        (output / CONFIG_FILE).unlink(missing_ok=True)  # a folder with a config is complete
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            os.replace(staging / name, output / name)
    except OSError as error:
        raise ConfigError(f"output={output} cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    size = (output / WEIGHTS_FILE).stat().st_size / 1e6
    print(f"written {output} ({'half' if half else 'full'} precision, {size:.1f} MB, hash {written.hash[:12]})")
    if half:
        print(rounding_report(loaded.policy, written.policy))
    return dataclasses.replace(written, source=output / WEIGHTS_FILE)


def _is_unfinished(weights_file: Path, loaded: LoadedPolicy) -> bool:
    """Whether the file, which has no config beside it, is what a killed conversion of the same checkpoint left."""
    try:
        with safe_open(weights_file, "pt") as file:
            return (file.metadata() or {}).get("source_hash") == loaded.hash
    except (OSError, SafetensorError):
        return False


@torch.no_grad()
def rounding_report(full: torch.nn.Module, half: torch.nn.Module, samples: int = 4) -> str:
    """Largest change of a weight, and of an action for the same noise on random observations of the training range."""
    change = max((a - b).abs().max().item() for a, b in zip(full.parameters(), half.parameters()) if a.numel())
    obs = full.random_observation(samples, torch.Generator().manual_seed(0))
    a, b = (policy.predict_action(obs, torch.Generator().manual_seed(0))["action"] for policy in (full, half))
    limits = full.normalizer["action"].input_stats
    relative = ((a - b).abs() / (limits["max"] - limits["min"]).clamp_min(1e-6)).max().item()
    moved = (a - b).abs().max().item()
    return (
        f"half precision changes a weight by at most {change:.2g}, and an action by at most {moved:.2g} "
        f"({100 * relative:.2g} % of its range) on {samples} random observations"
    )
