"""From the derived name of a sampler (`bac.sampler_name`) to the `sampler` section that makes it."""

from __future__ import annotations

import re
from typing import Any

from bac.samplers.grids import SPACINGS
from bac_workbench.settings.sampler import SAMPLER_TYPES
from diffusion_policy.common.config import ConfigError

#: tag -> options of the section
_WORDS: dict[str, dict[str, Any]] = {
    **{spacing: {"spacing": spacing} for spacing in SPACINGS},
    "coupled": {"coupled": True},
    "uncoupled": {"coupled": False},
    "reclip": {"use_clipped_model_output": True},
    "noreclip": {"use_clipped_model_output": False},
    "order1": {"solver_order": 1},
}


def section_of(name: str) -> dict[str, Any]:
    """'ddim16-even' -> {'type': 'ddim', 'steps': 16, 'spacing': 'even'}.

    Args:
        name: kind, number of steps, and tags for spacing (`even`, ...) or timesteps (`at92_54_28_9_4`), `eta0.5`,
            `coupled`, `uncoupled`, `reclip`, `noreclip`, `order1`.

    Raises:
        ConfigError: it is none, or a tag says too little to make the sampler again.
    """
    first, *tags = name.split("-")
    match = re.fullmatch(rf"({'|'.join(SAMPLER_TYPES)})(\d+)", first)
    if match is None:
        kinds = ", ".join(f"{kind}<steps>" for kind in SAMPLER_TYPES)
        raise ConfigError(f"use {kinds} or checkpoint, such as full@ancestral5, full@ddim16 or full@ddim16-even")
    section: dict[str, Any] = {"type": match[1], "steps": int(match[2])}
    for tag in tags:
        options = _options(tag)
        if repeated := set(options) & set(section):
            raise ConfigError(f"{name!r} says twice what sampler.{repeated.pop()} is")
        section |= options
    timesteps = section.get("timesteps")
    if timesteps is not None and len(timesteps) != section["steps"]:
        raise ConfigError(f"{name!r} lists {len(timesteps)} timesteps for {section['steps']} steps")
    return section


def _options(tag: str) -> dict[str, Any]:
    if tag in _WORDS:
        return _WORDS[tag]
    if re.fullmatch(r"at\d+(_\d+)*", tag):
        return {"timesteps": [int(t) for t in tag[2:].split("_")]}
    if re.fullmatch(r"eta[\d.]+(em\d+)?", tag):
        return {"eta": float(tag[3:].replace("m", "-"))}
    if re.fullmatch(r"(grid|fitted)[0-9a-f]{8}", tag):
        raise ConfigError(f"-{tag} is a digest, from which no sampler can be made: use sampler.timesteps=[...] instead")
    known = ", ".join(f"-{word}" for word in _WORDS)
    raise ConfigError(f"-{tag} is no tag that a method may have: use {known}, -at<t>_<t>_... or -eta<number>")
