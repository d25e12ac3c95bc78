"""Samplers on a grid of this project's (`bac.samplers`), from a `sampler` section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bac.errors import UserError
from bac.samplers.grid_loop import GridLoop, GridSettings
from bac.samplers.grids import KINDS, OF_DIFFUSERS, default_spacing, timesteps_of
from diffusion_policy.common.config import ConfigError
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler

#: option of a section -> field of GridSettings, by kind
_OPTIONS = {
    "ancestral": {"coupled": "coupled"},
    "ddim": {"eta": "eta", "coupled": "coupled", "use_clipped_model_output": "reclip"},
    "dpmpp": {"solver_order": "order"},
}


def wants_grid(kind: str, chosen: bool, steps: int | None, spacing: str | None, options: Mapping[str, Any]) -> bool:
    """Whether a section asks for a grid that diffusers does not have.

    Args:
        kind: of solver, the section's or the checkpoint's own.
        chosen: whether the section names it: else the checkpoint's own spacing goes on.
        steps: None: not known, which is an error elsewhere.
        spacing: None: not set.
        options: the others that are set.
    """
    if kind == "ancestral" or "timesteps" in options or spacing not in (None, *OF_DIFFUSERS):
        return True
    if kind == "ddim" and options.get("coupled"):
        return True
    if kind not in KINDS or not chosen or spacing is not None or steps is None:
        return False
    return kind == "ddim" and default_spacing(kind, steps, steps + 1) not in OF_DIFFUSERS


def build_grid_sampler(
    own: DiffusionSampler, kind: str, steps: int | None, spacing: str | None, options: Mapping[str, Any]
) -> GridLoop:
    """The sampler; arguments as of `wants_grid`.

    Raises:
        ConfigError: it is not possible on this checkpoint, or an option would have no effect.
    """
    if kind == "flow":
        raise ConfigError(
            "flow matching samples with Euler's method on even steps: leave all but sampler.steps out of its sampler"
        )
    if kind not in KINDS:
        raise ConfigError(
            f"a {kind} sampler has the spacings of diffusers, {', '.join(OF_DIFFUSERS)}: "
            "use sampler.type=ancestral, which is ddpm on any grid"
        )
    trained = own.scheduler.config["num_train_timesteps"]
    remaining = dict(options)
    timesteps = remaining.pop("timesteps", None)
    if timesteps is not None and steps not in (None, len(timesteps)):
        raise ConfigError(f"sampler.steps={steps} contradicts sampler.timesteps, which has {len(timesteps)}")
    if timesteps is None and steps is None:
        raise ConfigError(f"sampler.type={kind} needs a number of steps: add sampler.steps=1 to {trained}")
    _check_clipping(own, remaining)
    fields = {}
    for name, value in remaining.items():
        if name not in _OPTIONS[kind]:
            raise ConfigError(_no_option(kind, name))
        fields[_OPTIONS[kind][name]] = value
    try:
        return GridLoop(own, GridSettings(kind, _grid(kind, steps, spacing, timesteps, trained), **fields))
    except UserError as error:
        raise ConfigError(f"this sampler is not possible: {error}") from error


def _grid(
    kind: str, steps: int | None, spacing: str | None, timesteps: list[int] | None, trained: int
) -> tuple[int, ...]:
    if timesteps is None:
        return timesteps_of(spacing or default_spacing(kind, steps, trained), steps, trained)
    if spacing is not None and tuple(timesteps) != timesteps_of(spacing, len(timesteps), trained):
        raise ConfigError(f"sampler.timesteps are not those of sampler.spacing={spacing}: leave one of them out")
    return tuple(timesteps)


def _check_clipping(own: DiffusionSampler, options: dict[str, Any]) -> None:
    """Takes clipping out of `options`, where it is as trained."""
    for name, usual in (("clip_sample", False), ("clip_sample_range", 1.0)):
        trained = own.scheduler.config.get(name, usual)
        if options.pop(name, trained) != trained:
            raise ConfigError(
                f"sampler.{name} is {trained} on a grid, as the policy was trained: "
                f"to set it use a spacing of diffusers, {', '.join(OF_DIFFUSERS)}"
            )


def _no_option(kind: str, name: str) -> str:
    known = ", ".join(("steps", "spacing", "timesteps", *_OPTIONS[kind]))
    text = f"sampler.{name} is no option of a {kind} sampler on a grid: it has {known}"
    return f"{text}; add sampler.spacing=leading for diffusers' own" if kind != "ancestral" else text
