"""Which of the known solvers a scheduler object is. Schedulers are met by name: this package imports none of them."""

from __future__ import annotations

from typing import Any

#: class -> kind of solver
_DIFFUSERS = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp",
    "FlowMatchEulerDiscreteScheduler": "flow",
}
#: the same solvers as Diffusion Policy's loop uses them: DDIM along any grid, DPM-Solver++ that clips as trained, and
#: Euler's method on the whole timesteps of training
_DIFFUSION_POLICY = {"GridDDIM": "ddim", "ClippedDPMSolver": "dpmpp", "FlowMatching": "flow"}
_MODULES = ("diffusion_policy.policy.schedulers", "diffusion_policy.policy.flow_matching")


def kind_of(scheduler: Any) -> str | None:
    """ddpm, ddim, dpmpp or flow; None for any other class, subclasses of these included: their steps may differ."""
    cls = type(scheduler)
    if cls.__module__.split(".")[0] == "diffusers":
        return _DIFFUSERS.get(cls.__name__)
    if cls.__module__ in _MODULES:
        return _DIFFUSION_POLICY.get(cls.__name__)
    return None


def is_known_project(scheduler: Any) -> bool:
    """Whether the class is of diffusers or of Diffusion Policy, so that its name says what it is."""
    module = type(scheduler).__module__
    return module.split(".")[0] == "diffusers" or module in _MODULES


def clips(scheduler: Any) -> bool:
    """Whether its estimate of the clean sample is clipped.

    diffusers' DPM-Solver++ keeps a `clip_sample` of the config that it was made from, and ignores it.
    """
    ignores = type(scheduler).__name__ == "DPMSolverMultistepScheduler"
    return not ignores and bool(scheduler.config.get("clip_sample", False))
