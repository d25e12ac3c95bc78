"""What is used of diffusers, imported without torch's compiler: that takes a third of a command's start.

With its first module diffusers imports `torch._dynamo`, to mark classes of its own models, none of which is used here.
Where such a model is imported later, its classes are marked as ever.
"""

from __future__ import annotations

import sys
from typing import Any

import torch  # noqa: F401  # first, as it may import its compiler for itself

_COMPILER = "torch._dynamo"


def _allow_in_graph(marked: Any) -> Any:
    """As diffusers' `maybe_allow_in_graph`, with an import of the compiler when it is needed."""
    from torch._dynamo import allow_in_graph

    return allow_in_graph(marked)


def _import_without_compiler() -> None:
    if _COMPILER in sys.modules or "diffusers.utils.torch_utils" in sys.modules:
        return
    sys.modules[_COMPILER] = None  # type: ignore[assignment]  # importing it is an ImportError, which diffusers expects
    try:
        from diffusers.utils import torch_utils
    finally:
        del sys.modules[_COMPILER]
    if hasattr(torch_utils, "maybe_allow_in_graph"):
        torch_utils.maybe_allow_in_graph = _allow_in_graph


_import_without_compiler()

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler  # noqa: E402
from diffusers.configuration_utils import ConfigMixin, register_to_config  # noqa: E402
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput  # noqa: E402
from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: E402
from diffusers.utils.torch_utils import randn_tensor  # noqa: E402

__all__ = [
    "ConfigMixin",
    "DDIMScheduler",
    "DDIMSchedulerOutput",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "SchedulerMixin",
    "randn_tensor",
    "register_to_config",
]
