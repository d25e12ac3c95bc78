"""Methods by name, as the benchmark and the profiler list them: full, bac_s10, uniform_s5@ddim16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from bac_workbench.locations import CONFIG
from bac_workbench.settings.caches import CACHES, Cache, make_cache
from bac_workbench.settings.sampler import sampler_problems
from bac_workbench.settings.sampler_names import section_of
from diffusion_policy.common.config import ConfigError

CACHE_FILES = CONFIG / "cache"


@dataclass(frozen=True)
class Method:
    """A cache with its budget, on a sampler; written bac_s10@ddim16, without @ on the checkpoint's own sampler.

    Attributes:
        sampler: the `sampler` section of a config; empty: the checkpoint's own.
    """

    cache: Cache
    sampler: dict[str, Any]

    @property
    def label(self) -> str:
        return self.cache.label


def parse_method(text: str) -> Method:
    """'bac_s7@ddim16' -> Method. Budget and sampler may be left out; all else is as config/cache/<cache>.yaml says.

    Raises:
        ConfigError: there is no such cache or sampler.
    """
    label, at, sampler = text.partition("@")
    name, _, budget = label.partition("_s") if "_s" in label else (label, "", "")
    if name not in CACHES or (budget and not budget.isdecimal()):
        raise ConfigError(
            f"method {text!r} is not known: write <cache>[_s<budget>][@<sampler>] with cache one of {', '.join(CACHES)}"
        )
    if budget and "budget" not in CACHES[name].model_fields:
        why = "it computes every block at every step" if name == "full" else "its certificate says everything"
        raise ConfigError(f"method {text!r} is not known: {name} has no budget, {why}")
    if name == "tuned" and at:
        raise ConfigError(f"method {text!r} is not possible: the certificate says which sampler; write tuned alone")
    return Method(named_cache(name, int(budget) if budget else None), parse_sampler(sampler, text) if at else {})


def named_cache(name: str, budget: int | None = None) -> Cache:
    """The cache of config/cache/<name>.yaml; `budget` in place of the file's own."""
    values = yaml.safe_load((CACHE_FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    cache = make_cache(values)
    return cache if budget is None else cache.replace(budget=budget)


def parse_sampler(name: str, method: str) -> dict[str, Any]:
    """'ddim16' -> {'type': 'ddim', 'steps': 16}; 'checkpoint' is the checkpoint's own; see `sampler_names`.

    Raises:
        ConfigError: it names no sampler, or none that is possible whatever the checkpoint.
    """
    if name == "checkpoint":
        return {}
    try:
        section = section_of(name)
    except ConfigError as error:
        raise ConfigError(f"method {method!r} names an unknown sampler: {error}") from error
    for path, problem in sampler_problems(lambda path: section.get(path.removeprefix("sampler."))):
        raise ConfigError(f"method {method!r} is not possible: {path}: {problem}")
    return section
