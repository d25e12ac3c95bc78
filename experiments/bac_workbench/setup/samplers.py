"""Samplers of a trained policy: the one its checkpoint names, or another with the same noise schedule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch

from bac.loop import DenoisingLoop
from bac.sampler_name import NOISE, VALUES, loop_name
from bac.samplers.grid_loop import GridLoop
from bac_workbench.setup.grid_samplers import build_grid_sampler, wants_grid
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.light_diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.flow_matching import FlowMatching
from diffusion_policy.policy.schedulers import like_trained

FLOW = "flow"
SCHEDULERS = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    FLOW: FlowMatching,
}
#: arguments of scheduler.step that a config may set, with the type's usual value
STEP_OPTIONS = {"eta": 0.0, "use_clipped_model_output": False}
#: said by the config of the checkpoint, also to solvers whose class in diffusers has no such option
CLIPPING = {"clip_sample": True, "clip_sample_range": 1.0}
CHOICES = {
    **{name: tuple(values) for name, values in VALUES.items()},
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large"),
}  # the others need a model that predicts a variance


def name_of(sampler: DenoisingLoop, own: DenoisingLoop) -> str:
    """The derived name of `sampler` beside the checkpoint's `own`."""
    return loop_name(sampler, own.scheduler)


def kind_of(sampler: DenoisingLoop) -> str:
    """What `sampler.type` calls it, or the name of its scheduler's class."""
    if isinstance(sampler, GridLoop):
        return sampler.settings.kind
    return next(
        (kind for kind, cls in SCHEDULERS.items() if isinstance(sampler.scheduler, cls)),
        type(sampler.scheduler).__name__,
    )


def build_sampler(own: DiffusionSampler, settings: Mapping[str, Any]) -> DenoisingLoop:
    """The sampler that a config's `sampler` section asks for.

    Args:
        own: the checkpoint's sampler, from which everything comes that is not set.
        settings: `type`, `steps`, `name` (must be right if it is set) and options of the scheduler; None: not set.

    Raises:
        ConfigError: something in it is impossible, or would have no effect.
    """
    options = _set_options(settings)
    spacing, other = options.pop("spacing", None), options.pop("timestep_spacing", None)
    if None not in (spacing, other) and spacing != other:
        raise ConfigError("sampler.spacing and sampler.timestep_spacing are two spellings: leave one of them out")
    name, kind, steps = (options.pop(key, None) for key in ("name", "type", "steps"))
    kind = None if kind == "checkpoint" else kind
    sampler = _built(own, kind, steps, spacing or other, options)
    derived = name_of(sampler, own)
    if name is not None and str(name) != derived:
        raise ConfigError(
            f"sampler.name={name} is not what these settings are, which is {derived}: "
            "leave sampler.name out, names are derived"
        )
    return sampler


def _built(
    own: DiffusionSampler, kind: str | None, steps: int | None, spacing: str | None, options: dict[str, Any]
) -> DenoisingLoop:
    if (kind, steps, spacing) == (None, None, None) and not options:
        return own
    same_kind = kind in (None, kind_of(own))
    wanted = kind_of(own) if kind is None else kind
    if not same_kind and FLOW in (wanted, kind_of(own)):
        raise ConfigError(
            f"sampler.type={wanted} does not fit a checkpoint of {kind_of(own)}: a policy learns flow matching or "
            "diffusion. Leave sampler.type out; sampler.steps is possible"
        )
    own_steps = own.num_inference_steps if same_kind else None
    if wants_grid(wanted, kind is not None, own_steps if steps is None else steps, spacing, options):
        if steps is None and "timesteps" not in options:
            steps = own_steps
        return build_grid_sampler(own, wanted, steps, spacing, {**own.step_kwargs, **options} if same_kind else options)
    if wanted == "ddim":
        options.pop("coupled", None)  # false, as it is then
    return _other(own, kind, steps, options if spacing is None else {**options, "timestep_spacing": spacing})


def resolved(sampler: DenoisingLoop, own: DenoisingLoop, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `sampler` section as it turned out: derived name, type, steps, and the options that were set; of a grid its
    timesteps and whether its noise is coupled, too.
    """
    derived = {"name": name_of(sampler, own), "type": kind_of(sampler), "steps": sampler.num_inference_steps}
    if isinstance(sampler, GridLoop):
        derived["timesteps"] = list(sampler.settings.timesteps)
        if sampler.settings.kind != "dpmpp":
            derived["coupled"] = sampler.settings.coupled
    return {**_set_options(settings), **derived}


def _set_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null."""
    return {str(name): value for name, value in settings.items() if value is not None}


def _other(own: DiffusionSampler, kind: Any, steps: Any, options: dict[str, Any]) -> DiffusionSampler:
    kind = kind_of(own) if kind is None else kind
    same_kind = kind == kind_of(own)
    if kind not in SCHEDULERS and not same_kind:
        raise ConfigError(f"sampler.type={kind} is unknown: use {', '.join(SCHEDULERS)}")
    cls = SCHEDULERS.get(kind, type(own.scheduler))
    longest = own.scheduler.config["num_train_timesteps"]
    if steps is None:
        if not same_kind:
            raise ConfigError(
                f"sampler.type={kind} needs a number of steps, as the checkpoint's own sampler is {kind_of(own)}: "
                f"add sampler.steps=1 to {longest}"
            )
        steps = own.num_inference_steps
    if type(steps) is not int or not 1 <= steps <= longest:
        raise ConfigError(f"sampler.steps={steps} is not possible: use 1 to {longest}, the number it was trained with")
    step_kwargs = dict(own.step_kwargs) if same_kind else {}
    changes = {}
    for name, value in options.items():
        usual = _usual(cls, kind, name)
        _check_value(kind, name, value, usual)
        if name in STEP_OPTIONS:
            step_kwargs[name] = value
        else:
            changes[name] = value
    try:
        sampler = DiffusionSampler(own.model, like_trained(own.scheduler, cls, **changes), steps, step_kwargs)
        finite = _gives_numbers(sampler)
    except Exception as error:  # whatever diffusers raises: the settings were the user's
        raise ConfigError(
            f"a {kind} sampler of {steps} steps{_option_text(options)} is not possible: {error}"
        ) from error
    if not finite:
        raise ConfigError(
            f"a {kind} sampler of {steps} steps{_option_text(options)} gives NaN or infinite actions: "
            "use other settings"
        )
    return sampler


def _option_text(options: Mapping[str, Any]) -> str:
    return "".join(f" with sampler.{name}={value}" for name, value in options.items())


def _usual(cls: type, kind: str, name: str) -> Any:
    """The usual value of an option, or an error that says why it cannot be set."""
    if name in NOISE:
        raise ConfigError(
            f"sampler.{name} belongs to the training of the checkpoint and cannot be set: use one that was trained so"
        )
    step = inspect.signature(cls.step).parameters
    constructor = inspect.signature(cls.__init__).parameters
    if name in STEP_OPTIONS and name in step:
        return STEP_OPTIONS[name]
    if name in constructor and name != "self" and constructor[name].default not in (None, inspect.Parameter.empty):
        return constructor[name].default
    if name in CLIPPING:
        return CLIPPING[name]
    known = [
        *(option for option in STEP_OPTIONS if option in step),
        *CLIPPING,
        *(
            option
            for option, item in constructor.items()
            if option not in (*NOISE, *CLIPPING, "self") and item.default is not None
        ),
    ]
    raise ConfigError(f"sampler.{name} is no option of a {kind} sampler: it has {', '.join(known)}")


def _check_value(kind: str, name: str, value: Any, usual: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(usual, bool):
        right, wanted = isinstance(value, bool), "true or false"
    elif name in CHOICES:
        right, wanted = value in CHOICES[name], ", ".join(CHOICES[name])
    elif name == "eta":
        right, wanted = number and 0 <= value <= 1, "a number from 0 to 1"
    elif isinstance(usual, int):
        right, wanted = type(value) is int and value >= 0, "a whole number"
    elif isinstance(usual, float):
        right, wanted = number and (value > 0 or not math.isfinite(usual)), "a number above 0"
    else:
        right, wanted = isinstance(value, type(usual)), f"a value such as {usual!r}"
    if not right:
        raise ConfigError(f"sampler.{name}={value} is not possible for a {kind} sampler: use {wanted}")


def _gives_numbers(sampler: DiffusionSampler) -> bool:
    """Runs the scheduler's own arithmetic once, on a trajectory of one number."""
    generator = torch.Generator().manual_seed(0)
    scheduler = sampler.prepared()
    trajectory = torch.randn(1, 1, 1, generator=generator)
    for timestep in scheduler.timesteps:
        trajectory = sampler.step(scheduler, torch.zeros_like(trajectory), timestep, trajectory, generator)
    return bool(torch.isfinite(trajectory).all())
