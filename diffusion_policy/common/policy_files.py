"""Policies on disk in this project's form: a folder with `policy.safetensors` and `config.yaml`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save
from torch import nn

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.distinct_weights import distinct_state
from diffusion_policy.common.files import atomic_path
from diffusion_policy.common.origin import check_own
from diffusion_policy.common.other_policies import of_other_kind
from diffusion_policy.common.policy_settings import check_arguments, check_policy

if TYPE_CHECKING:
    from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy

WEIGHTS_FILE, CONFIG_FILE = "policy.safetensors", "config.yaml"

# All that a config may build: `_target_` -> where it is. Checkpoints are downloaded, so a config may name nothing else;
# to use a class of your own, add it here. Names of the original project keep their meaning.
POLICIES = {
    name: name
    for name in (
        "diffusion_policy.policy.diffusion_transformer_lowdim_policy.DiffusionTransformerLowdimPolicy",
        "diffusion_policy.policy.diffusion_transformer_hybrid_image_policy.DiffusionTransformerHybridImagePolicy",
    )
}
PARTS = {
    name: name
    for name in (
        "diffusion_policy.model.diffusion.transformer_for_diffusion.TransformerForDiffusion",
        "diffusion_policy.policy.flow_matching.FlowMatching",
        "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
        "diffusers.schedulers.scheduling_ddim.DDIMScheduler",
        "diffusers.schedulers.scheduling_dpmsolver_multistep.DPMSolverMultistepScheduler",
    )
}
PARTS.update(
    {  # the short names diffusers exports
        f"{package}.{name.rpartition('.')[2]}": name
        for name in list(PARTS)
        if name.startswith("diffusers.")
        for package in ("diffusers", "diffusers.schedulers")
    }
)


def build_policy(config: dict[str, Any], device: str = "cpu") -> DiffusionTransformerPolicy:
    """Builds `config['policy']` (a resolved `_target_` tree), untrained, in evaluation mode.

    Args:
        device: 'cpu', or 'meta' for shapes without memory; the scheduler's numbers are there in both cases.
    Raises:
        ConfigError: a target is not in `POLICIES` or `PARTS`, or its arguments do not fit.
    """
    tree = config.get("policy")
    target = tree.get("_target_") if isinstance(tree, dict) else None
    if not isinstance(target, str) or target not in POLICIES:
        advice = of_other_kind(target) or f"use {', '.join(POLICIES)}"
        raise ConfigError(f"policy._target_ is {_short(target)!r}, which is not a supported policy: {advice}")
    policy: DiffusionTransformerPolicy = _build(tree, "policy", device).eval()
    check_policy(policy)
    return policy


def _short(target: Any) -> Any:
    """A target for an error message, whatever it is."""
    if isinstance(target, str):
        return target[:200]
    if isinstance(target, list) and len(target) < 8:
        return [_short(item) for item in target]
    return target if target is None or isinstance(target, (bool, float)) else type(target)


def _build(tree: Any, where: str, device: str) -> Any:
    if isinstance(tree, list):
        return [_build(item, f"{where}[{index}]", device) for index, item in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    arguments = {str(key): _build(value, f"{where}.{key}", device) for key, value in tree.items() if key != "_target_"}
    if "_target_" not in tree:
        return arguments
    target = tree["_target_"]
    location = {**POLICIES, **PARTS}.get(target) if isinstance(target, str) else None
    if location is None:
        supported = ", ".join(dict.fromkeys([*POLICIES, *PARTS.values()]))
        raise ConfigError(
            f"{where}._target_ is {_short(target)!r}, which a config may not build; supported are {supported}"
        )
    module, _, name = location.rpartition(".")
    check_own(module)
    try:
        check_arguments(name, arguments)
        with torch.device("cpu" if location.startswith("diffusers.") or name == "FlowMatching" else device):
            return getattr(import_module(module), name)(**arguments)
    except (
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        ArithmeticError,
    ) as error:
        raise ConfigError(f"{where}: {name} cannot be built with these settings: {str(error)[:400]}") from error


def save_policy(
    folder: str | Path, policy: nn.Module, config: dict[str, Any], metadata: dict[str, str], half: bool = True
) -> None:
    """Writes the weights (half precision by default; normalizer and buffers always in full) and the resolved config.

    `metadata` (strings: weights 'ema' or 'raw', step, ...) goes into the safetensors header. The config is written
    last: a folder with a config is complete.
    """
    folder = Path(folder)
    parameters = {name for name, _ in policy.named_parameters() if not name.startswith("normalizer.")}
    tensors = {}
    for name, value in distinct_state(policy).items():
        value = value.detach().cpu().contiguous()
        shrink = half and value.is_floating_point() and name in parameters
        tensors[name] = value.to(torch.float16) if shrink else value.clone()
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as path:
        # Not save_file: it makes files that only their owner can read.
        path.write_bytes(save(tensors, metadata={key: str(value) for key, value in metadata.items()}))
    with atomic_path(folder / CONFIG_FILE) as path:
        path.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
