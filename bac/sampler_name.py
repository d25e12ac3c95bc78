"""The name of a sampler, derived from what it is: `ddpm100`, `ddim16`, `ddim16-trailing-eta0.5`, `ancestral5`.

A name is the kind of solver, the number of steps, and a tag for everything that differs from the solver's plain form
and changes samples. Two samplers of one policy that sample differently never share a name; names are safe as folder
names. The noise schedule and what the model predicts belong to the checkpoint: they are in the name only where a
sampler differs from the checkpoint's own.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bac.samplers.grid_loop import GridLoop
from bac.samplers.grids import FEWEST_OF_DIFFUSERS, OF_DIFFUSERS, default_spacing, spacing_of
from bac.scheduler_kinds import clips, is_known_project, kind_of

if TYPE_CHECKING:
    from bac.loop import DenoisingLoop

#: options of a scheduler that are the checkpoint's, not the sampler's
NOISE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
#: tags of options whose values speak for themselves
VALUES = {
    "timestep_spacing": {"leading": "leading", "linspace": "linspace", "trailing": "trailing"},
    "variance_type": {
        name: name
        for name in ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
    },
    "algorithm_type": {
        "dpmsolver": "dpmsolver",
        "dpmsolver++": "dpmsolverpp",
        "sde-dpmsolver": "sde_dpmsolver",
        "sde-dpmsolver++": "sde_dpmsolverpp",
    },
    "solver_type": {"midpoint": "midpoint", "heun": "heun"},
    "final_sigmas_type": {"zero": "zero_last", "sigma_min": "sigma_min"},
}
SHORT = {"solver_order": "order", "clip_sample_range": "clip", "steps_offset": "offset"}
MOST_LISTED = 16  # timesteps of a grid that its name lists
LONGEST = 120  # characters; a file system takes 255 bytes


def sampler_name(
    scheduler: Any, num_inference_steps: int, step_kwargs: Mapping[str, Any] | None = None, trained: Any = None
) -> str:
    """Canonical name of the sampler that steps `scheduler` through `num_inference_steps`.

    Args:
        scheduler: a diffusers scheduler; its own state does not matter.
        step_kwargs: further arguments of `scheduler.step` (eta, ...).
        trained: the scheduler of the checkpoint that is sampled from, to tell another noise schedule; None: it is the
            same.

    Returns:
        For example `ddpm100`, `ddim16-noclip`, `dpmpp16-order1`. Letters, digits and `._-` only, 120 characters at
        most.
    """
    kind = _kind(scheduler)
    tags = [
        *_option_tags(scheduler, kind, num_inference_steps),
        *_step_tags(step_kwargs or {}),
        *([] if trained is None else _noise_tags(scheduler, trained)),
    ]
    name = "-".join([f"{kind}{int(num_inference_steps)}", *tags])
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 17]}-{_digest(name, 16)}"


def loop_name(loop: DenoisingLoop, trained: Any = None) -> str:
    """Canonical name of any denoising loop: `sampler_name` of what steps a diffusers scheduler, else of its grid.

    A grid sampler of the default spacing for its kind and number of steps has no tag: ancestral5, ddim3. Another
    spacing is named (ddim16-even), timesteps of no rule are listed (ancestral5-at92_54_28_9_4).

    Args:
        trained: the checkpoint's own scheduler.

    Raises:
        ValueError: the timesteps of a grid sampler do not fit its scheduler.
    """
    if not isinstance(loop, GridLoop):
        return sampler_name(loop.scheduler, loop.num_inference_steps, loop.step_kwargs, trained)
    name = "-".join([f"{loop.settings.kind}{loop.settings.steps}", *_grid_tags(loop, trained)])
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 17]}-{_digest(name, 16)}"


def _grid_tags(loop: GridLoop, trained: Any) -> list[str]:
    settings, tags = loop.settings, []
    length = len(loop.scheduler.alphas_cumprod)
    spacing = spacing_of(settings.timesteps, settings.kind, length)
    if loop.clip != 1:
        tags.append("noclip" if math.isinf(loop.clip) else _tag("clip_sample_range", loop.clip))
    if spacing is None:
        listed = "_".join(map(str, settings.timesteps))
        tags.append(f"at{listed}" if settings.steps <= MOST_LISTED else f"grid{_digest(listed)}")
    elif spacing != default_spacing(settings.kind, settings.steps, length):
        tags.append(spacing)
    if settings.order != 2:
        tags.append(_tag("solver_order", settings.order))
    if settings.eta:
        tags.append(_tag("eta", settings.eta))
    if settings.reclip is not None and settings.reclip != (spacing not in OF_DIFFUSERS):
        tags.append("reclip" if settings.reclip else "noreclip")
    if settings.coupled != (settings.kind == "ancestral"):
        tags.append("coupled" if settings.coupled else "uncoupled")
    if settings.fitted_digest is not None:
        tags.append(f"fitted{settings.fitted_digest}")
    return [*tags, *([] if trained is None else _noise_tags(loop.scheduler, trained))]


def noise_digest(scheduler: Any) -> str:
    """Eight hexadecimal digits for what the name leaves out: the noise schedule and what the model predicts."""
    config = dict(scheduler.config)
    return _digest("\n".join(f"{name} {_text(config.get(name))}" for name in NOISE))


def _kind(scheduler: Any) -> str:
    cls = type(scheduler)
    if is_known_project(scheduler):
        return kind_of(scheduler) or cls.__name__
    return f"{cls.__name__}_{_digest(f'{cls.__module__}.{cls.__qualname__}')}_"  # anyone may name a class so


def _option_tags(scheduler: Any, kind: str, steps: int) -> list[str]:
    config = dict(scheduler.config)
    plain = {
        name: parameter.default
        for name, parameter in inspect.signature(type(scheduler).__init__).parameters.items()
        if name in config and name not in NOISE
    }
    if kind == "dpmpp":
        config.update(clip_sample=clips(scheduler), clip_sample_range=config.get("clip_sample_range", 1.0))
        plain.update(clip_sample=True, clip_sample_range=1.0)
        if config["variance_type"] not in ("learned", "learned_range"):
            plain.pop("variance_type")  # a leftover of DDPM, which this solver does not look at
    if kind == "ddim" and steps < FEWEST_OF_DIFFUSERS:
        plain["timestep_spacing"] = None  # the plain form is a grid of `bac.samplers`
    if not config.get("clip_sample", False):
        plain.pop("clip_sample_range", None)
    if not config.get("thresholding", False):
        for name in ("dynamic_thresholding_ratio", "sample_max_value"):
            plain.pop(name, None)
    return [_tag(name, config[name]) for name in sorted(plain) if not _same(config[name], plain[name])]


def _step_tags(step_kwargs: Mapping[str, Any]) -> list[str]:
    tags = []
    for name in sorted(step_kwargs):
        value = step_kwargs[name]
        if value is None or _same(value, 0):  # diffusers' defaults: eta 0, use_clipped_model_output False
            continue
        if name == "use_clipped_model_output" and value is True:
            tags.append("reclip")
        else:
            tags.append(_tag(name if name == "eta" else f"step_{name}", value))
    return tags


def _noise_tags(scheduler: Any, trained: Any) -> list[str]:
    own, other = dict(trained.config), dict(scheduler.config)
    tags = [_tag(name, other.get(name)) for name in NOISE if not _same(own.get(name), other.get(name))]
    if not tags and getattr(scheduler, "betas", None) is not None and getattr(trained, "betas", None) is not None:
        ours, theirs = (item.betas.detach().cpu().double().tolist() for item in (scheduler, trained))
        if ours != theirs:  # set after construction
            tags.append(f"betas_{_digest(json.dumps(ours))}")
    return tags


def _tag(name: str, value: Any) -> str:
    if isinstance(value, str) and value in VALUES.get(name, {}):
        return VALUES[name][value]
    if name == "clip_sample" and value is False:
        return "noclip"
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    label = SHORT.get(name, name)
    if (number := _number(value)) is not None:
        return f"{label}{number}"
    if isinstance(value, str) and re.fullmatch("[a-z0-9_]{1,40}", value):
        return f"{label}_is_{value}"
    return f"{label}_like_{_digest(_text(value))}"


def _number(value: Any) -> str | None:
    """The shortest text that gives the number again, without signs: 0.5, 3, m1, 1em05."""
    if isinstance(value, (str, bool)) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) != 0:
        return None
    value = float(value)
    text = str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else repr(value)
    return text.replace("-", "m").replace("+", "")


def _same(a: Any, b: Any) -> bool:
    return a is b or _text(a) == _text(b)


def _text(value: Any) -> str:
    """A comparable form; numbers are equal whatever their type."""
    if value is None or isinstance(value, str):
        return json.dumps(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(item) for item in value) + "]"
    return repr(float(value)) if isinstance(value, (bool, int, float)) else repr(value)


def _digest(text: str, digits: int = 8) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
