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
    names = [name for name in CACHES if label == name or label.startswith(f"{name}_")]
    name = max(names, key=len, default="")
    tags = label.removeprefix(name).removeprefix("_")
    settings = (CACHES[name].settings_of(tags) if tags else {}) if names else None
    if settings is None and name and not has_budget(CACHES[name]):
        why = "its certificate says everything" if name == "tuned" else "it computes every block at every step"
        raise ConfigError(f"method {text!r} is not known: {name} has no budget, {why}")
    if settings is None:
        raise ConfigError(
            f"method {text!r} is not known: write <cache>[_s<budget>][@<sampler>] with cache one of {', '.join(CACHES)}"
        )
    if name == "tuned" and at:
        raise ConfigError(f"method {text!r} is not possible: the certificate says which sampler; write tuned alone")
    return Method(named_cache(name, **settings), parse_sampler(sampler, text) if at else {})


def has_budget(cache: type[Cache]) -> bool:
    return "budget" in cache.model_fields


def named_cache(name: str, **settings: Any) -> Cache:
    """The cache of config/cache/<name>.yaml, with some settings in place of the file's own."""
    values = yaml.safe_load((CACHE_FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    return make_cache(values).replace(**settings)


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
