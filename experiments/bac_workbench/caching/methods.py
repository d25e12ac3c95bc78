"""Methods by name, as the benchmark and the profiler list them: full, bac_s10, uniform_s5@ddim16."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bac_workbench.locations import CONFIG
from bac_workbench.settings.choices import CACHE_METHODS, SAMPLER_TYPES
from diffusion_policy.common.config import ConfigError


@dataclass(frozen=True)
class Method:
    """A cache with its budget, on a sampler; written bac_s10@ddim16, without @ on the checkpoint's own sampler.

    Attributes:
        sampler: the `sampler` section of a config; empty: the checkpoint's own.
    """

    cache: DictConfig
    sampler: dict[str, Any]
    label: str


def parse_method(text: str) -> Method:
    """'bac_s7@ddim16' -> Method; budget and sampler may be left out. Other settings are those of config/cache/<cache>.yaml."""
    label, at, sampler_name = str(text).partition("@")
    cache_name, _, budget = label.partition("_s") if "_s" in label else (label, "", "")
    cache_file = CONFIG / "cache" / f"{cache_name}.yaml"
    if cache_name not in CACHE_METHODS or not cache_file.exists() or (budget and not budget.isdecimal()):
        raise ConfigError(
            f"method {text!r} is not known: write <cache>[_s<budget>][@<sampler>] with cache one of {', '.join(CACHE_METHODS)}"
        )
    if budget and cache_name == "full":
        raise ConfigError(f"method {text!r} is not known: full has no budget, it computes every block at every step")
    cache = OmegaConf.load(cache_file)
    if budget:
        cache.budget = int(budget)
    sampler = parse_sampler(sampler_name, str(text)) if at else {}
    return Method(cache, sampler, label if budget or cache.method == "full" else f"{label}_s{cache.budget}")


def parse_sampler(name: str, method: str) -> dict[str, Any]:
    """'ddim16' -> {'type': 'ddim', 'steps': 16}; 'checkpoint' is the checkpoint's own."""
    if name == "checkpoint":
        return {}
    found = re.fullmatch(rf"({'|'.join(SAMPLER_TYPES)})(\d+)", name)
    if found is None:
        raise ConfigError(
            f"method {method!r} names an unknown sampler: use {', '.join(f'{kind}<steps>' for kind in SAMPLER_TYPES)} or checkpoint, "
            "such as full@ddim16"
        )
    return {"type": found[1], "steps": int(found[2])}
