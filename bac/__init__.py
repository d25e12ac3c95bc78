"""Block-wise Adaptive Caching: fast sampling from Transformer Diffusion Policies without retraining.

Nothing heavy is imported before it is used: `import bac` alone does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bac.acceleration import Acceleration, accelerate
    from bac.blocks import Block
    from bac.cached_model import CachedModel, cache
    from bac.errors import UserError
    from bac.profiling import profile
    from bac.provenance import ScheduleError
    from bac.schedule import Schedule
    from bac.tuned import Tuned

_MODULES = {
    "Acceleration": "bac.acceleration",
    "accelerate": "bac.acceleration",
    "Block": "bac.blocks",
    "CachedModel": "bac.cached_model",
    "cache": "bac.cached_model",
    "Schedule": "bac.schedule",
    "ScheduleError": "bac.provenance",
    "Tuned": "bac.tuned",
    "UserError": "bac.errors",
    "profile": "bac.profiling",
}

__all__ = [
    "Acceleration",
    "Block",
    "CachedModel",
    "Schedule",
    "ScheduleError",
    "Tuned",
    "UserError",
    "accelerate",
    "cache",
    "profile",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'bac' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
