"""Policies of other kinds, which are not loaded here: what they are, and what can be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MAX_BYTES = 1 << 20
#: `type` of a LeRobot policy -> what it denoises with, where that is a transformer
_LEROBOT = {
    "multi_task_dit": "a DiT",
    "pi0": "an action expert of language-model layers",
    "pi05": "an action expert of language-model layers",
    "smolvla": "an action expert of language-model layers",
}
#: `type` -> what it is instead
_LEROBOT_OTHERS = {
    "diffusion": "Diffusion Policy with a U-Net",
    "act": "ACT, which predicts a chunk in one pass",
    "vqbet": "VQ-BeT, which predicts a chunk in one pass",
    "tdmpc": "TD-MPC, which denoises nothing",
}
_TRAIN = (
    "To have a Transformer Diffusion Policy, train one on the same data: bac train dataset=lerobot dataset.path=..."
)
_UNET = (
    "it is a Diffusion Policy with a U-Net, which has no residual branches of a transformer to cache. In the original "
    "project fewer steps make it faster: policy.noise_scheduler = "
    "DDIMScheduler.from_config(policy.noise_scheduler.config) and policy.num_inference_steps = 16. To have a "
    "Transformer Diffusion Policy, train one on the same data: bac train"
)


def of_other_kind(target: Any) -> str | None:
    """What a policy of the original project is whose class (`_target_`) is not built here; None: nothing is known."""
    name = target.rpartition(".")[2] if isinstance(target, str) else ""
    if "Unet" in name or "UNet" in name:
        return _UNET
    if name.startswith(("Robomimic", "IBC", "Ibc", "BET", "Bet")):
        return "it is a baseline of the original project that does not denoise with a transformer: evaluate it there"
    return None


def foreign_policy(folder: Path) -> str | None:
    """What to say of a folder with a policy of LeRobot, or of another library with a config.json; None: it has none."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_bytes()[:_MAX_BYTES])
        kind = config.get("type") if isinstance(config, dict) else None
    except (OSError, ValueError, RecursionError):
        kind = None
    if not isinstance(kind, str) or not kind.isidentifier() or len(kind) > 60:
        return (
            f"{folder} holds a policy of another library (config.json), which is not read. Give a folder that this "
            "project wrote, or an original .ckpt"
        )
    if kind in _LEROBOT:
        return (
            f"{folder} holds a LeRobot policy of type {kind}, which denoises with {_LEROBOT[kind]}: load it with "
            "lerobot, and cache its blocks in its own loop, bac.cache(model, schedule): docs/howto/other-models.md. "
            "The library (pip install bac-diffusion) installs beside it"
        )
    what = f": {_LEROBOT_OTHERS[kind]}" if kind in _LEROBOT_OTHERS else ""
    return (
        f"{folder} holds a LeRobot policy of type {kind}{what}, which is not read here and has no blocks to cache that "
        f"are known. {_TRAIN}"
    )
