"""Whether the settings of a policy and its parts can work, before anything is built from them.

A config may come with a downloaded file. What PyTorch or diffusers would accept and stumble over at the first action,
or reserve memory for, is refused here, with the name of the setting.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from diffusion_policy.common.config import ConfigError

if TYPE_CHECKING:
    from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy

_MOST = 65_536  # elements along an axis: of a trajectory, an observation, a token
_MOST_LAYERS = 1_024
_MOST_TIMESTEPS = 100_000
_MOST_PIXELS = 16_384  # along a side
_MOST_OBSERVATIONS = 256

Check = Callable[[Any], bool]


def _whole(low: int, high: int) -> tuple[str, Check]:
    return f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high


def _real(low: float, high: float, open_end: bool = False) -> tuple[str, Check]:
    def check(value: Any) -> bool:
        number = type(value) in (int, float) and low <= value <= high
        return number and not (open_end and value == high)

    return f"a number from {low:g} to {'below ' if open_end else ''}{high:g}", check


def _one_of(*values: Any) -> tuple[str, Check]:
    return "one of " + ", ".join(map(repr, values)), lambda value: any(
        value is v or (type(value) is str and value == v) for v in values
    )


def _or_none(rule: tuple[str, Check]) -> tuple[str, Check]:
    return f"{rule[0]}, or null", lambda value: value is None or rule[1](value)


_SIZE, _FLAG = (
    _whole(1, _MOST),
    ("true or false", lambda value: type(value) is bool or (type(value) is int and value in (0, 1))),
)
_BETAS = (
    f"at most {_MOST_TIMESTEPS} numbers between 0 and 1",
    lambda value: (
        type(value) is list and 0 < len(value) <= _MOST_TIMESTEPS and all(_real(0, 1)[1](beta) for beta in value)
    ),
)

_MODEL = {
    "input_dim": _SIZE,
    "output_dim": _SIZE,
    "horizon": _SIZE,
    "n_obs_steps": _or_none(_SIZE),
    "cond_dim": _whole(0, _MOST),
    "n_layer": _whole(1, _MOST_LAYERS),
    "n_head": _SIZE,
    "n_emb": _SIZE,
    "p_drop_emb": _real(0, 1),
    "p_drop_attn": _real(0, 1),
    "causal_attn": _FLAG,
    "time_as_cond": _FLAG,
    "obs_as_cond": _FLAG,
    "n_cond_layers": _whole(0, _MOST_LAYERS),
}
_POLICY = {
    "horizon": _SIZE,
    "n_action_steps": _SIZE,
    "n_obs_steps": _SIZE,
    "num_inference_steps": _or_none(_whole(1, _MOST_TIMESTEPS)),
    "obs_as_cond": _FLAG,
    "pred_action_steps_only": _FLAG,
}
_SCHEDULER = {
    "num_train_timesteps": _whole(1, _MOST_TIMESTEPS),
    "beta_start": _real(0, 1, True),
    "beta_end": _real(0, 1, True),
    "trained_betas": _or_none(_BETAS),
    "clip_sample_range": _real(1e-6, 1e6),
    "sample_max_value": _real(1e-6, 1e6),
    "dynamic_thresholding_ratio": _real(0, 1),
    "steps_offset": _whole(0, _MOST_TIMESTEPS),
    "solver_order": _whole(1, 3),
    "prediction_type": _one_of("epsilon", "sample", "v_prediction"),
    "timestep_spacing": _one_of("linspace", "leading", "trailing"),
    "variance_type": _one_of(None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "lambda_min_clipped": ("a number", lambda value: type(value) in (int, float) and not math.isnan(value)),
    **dict.fromkeys(
        (
            "clip_sample",
            "thresholding",
            "set_alpha_to_one",
            "rescale_betas_zero_snr",
            "use_karras_sigmas",
            "lower_order_final",
            "euler_at_final",
        ),
        _FLAG,
    ),
}
_STEP = {"eta": _real(0, 1), "use_clipped_model_output": _FLAG}
_RULES: dict[str, Mapping[str, tuple[str, Check]]] = {
    "TransformerForDiffusion": _MODEL,
    "DiffusionTransformerLowdimPolicy": {**_POLICY, "obs_dim": _SIZE, "action_dim": _SIZE},
    "DiffusionTransformerHybridImagePolicy": {
        **{name: rule for name, rule in _MODEL.items() if name not in ("input_dim", "output_dim", "cond_dim")},
        **_POLICY,
        "obs_encoder_group_norm": _FLAG,
        "eval_fixed_crop": _FLAG,
    },
    "FlowMatching": {"num_train_timesteps": _whole(1, _MOST_TIMESTEPS), "prediction_type": _one_of("flow")},
    **dict.fromkeys(("DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"), _SCHEDULER),
}


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Type and range of the arguments of a class that a config may build; names it does not know are left to the class.

    Raises:
        ValueError: a setting that cannot work.
    """
    rules = _RULES.get(name, {})
    for argument, value in arguments.items():
        if argument in rules and not rules[argument][1](value):
            raise ValueError(f"{argument} is {_text_of(value)}; it has to be {rules[argument][0]}")
    if rules is _SCHEDULER:
        betas, steps = arguments.get("trained_betas"), arguments.get("num_train_timesteps", 1000)
        if betas is not None and len(betas) != steps:
            raise ValueError(
                f"trained_betas has {len(betas)} numbers for num_train_timesteps={steps}: there has to be one for each"
            )
        for argument in set(arguments) - set(rules):
            if not isinstance(arguments[argument], (str, bool, int, float, type(None))):
                raise ValueError(f"{argument} is {_text_of(arguments[argument])}; it has to be a text or a number")
    if "shape_meta" in arguments:
        _check_shapes(arguments["shape_meta"])


def _check_shapes(meta: Any) -> None:
    """Bounds of what `parse_shape_meta` reads; it says what the form is."""
    observations = meta.get("obs") if isinstance(meta, dict) else None
    if not isinstance(observations, dict):
        return
    if len(observations) > _MOST_OBSERVATIONS:
        raise ValueError(
            f"shape_meta names {len(observations)} observations; at most {_MOST_OBSERVATIONS} are possible"
        )
    for name, entry in [*observations.items(), ("action", meta.get("action"))]:
        sizes = entry.get("shape") if isinstance(entry, dict) else None
        most = _MOST_PIXELS if isinstance(sizes, list) and len(sizes) == 3 else _MOST
        if isinstance(sizes, list) and any(type(size) is int and size > most for size in sizes):
            raise ValueError(
                f"shape_meta: {_text_of(name)} has the shape {_text_of(sizes)}; "
                f"at most {most} along an axis are possible"
            )


def check_policy(policy: DiffusionTransformerPolicy) -> None:
    """Whether the parts of a built policy fit each other, and its scheduler can take its steps.

    Raises:
        ConfigError: they do not.
    """
    for part in ("model", "noise_scheduler"):
        if not hasattr(getattr(policy, part), "config" if part == "noise_scheduler" else "masks"):
            kind = type(getattr(policy, part)).__name__
            raise ConfigError(
                f"policy.{part} is a {kind}: the settings do not fit, as a policy needs "
                + ("a diffusers scheduler there" if part == "noise_scheduler" else "a TransformerForDiffusion there")
            )
    model, (steps, width) = policy.model, policy.trajectory_shape
    if model.horizon != steps and (not policy.pred_action_steps_only or model.horizon < steps):
        raise ConfigError(
            f"the policy's horizon is {policy.horizon} and the model's is {model.horizon}: "
            "the settings do not fit each other"
        )
    if model.input_dim != width or model.output_dim != width:
        raise ConfigError(
            f"the model's input_dim is {model.input_dim} and its output_dim {model.output_dim}; "
            "with these sizes of actions and "
            f"observations both have to be {width}: the settings do not fit each other"
        )
    cond_dim = policy.obs_dim if policy.obs_as_cond else 0
    if model.cond_dim != cond_dim:
        raise ConfigError(
            f"the model's cond_dim is {model.cond_dim} instead of {cond_dim}: the settings do not fit each other"
        )
    if cond_dim and model.n_obs_steps != policy.n_obs_steps:
        raise ConfigError(
            f"the policy's n_obs_steps is {policy.n_obs_steps} and the model's is {model.n_obs_steps}: "
            "the settings do not fit each other"
        )
    _check_scheduler(policy)


def _check_scheduler(policy: DiffusionTransformerPolicy) -> None:
    """Takes the first and last steps with a copy of the scheduler, on one number."""
    sampler: Any = policy.sampler  # the policy's own: nothing has replaced it yet
    trained = policy.noise_scheduler.config.num_train_timesteps
    steps, extra = sampler.num_inference_steps, sampler.step_kwargs
    if steps > trained:
        raise ConfigError(
            f"num_inference_steps={steps} is not possible: use 1 to {trained}, the number it was trained with"
        )
    scheduler = policy.noise_scheduler
    name = type(scheduler).__name__
    taken = inspect.signature(scheduler.step).parameters
    for argument, value in extra.items():
        if argument not in taken or argument not in _STEP:
            raise ConfigError(
                f"policy got an unexpected keyword argument {argument!r}, which {name}.step does not take either"
            )
        if not _STEP[argument][1](value):
            raise ConfigError(f"policy: {argument} is {_text_of(value)}; it has to be {_STEP[argument][0]}")
    betas = getattr(scheduler, "betas", None)  # flow matching has none
    if betas is not None and (
        len(betas) != trained
        or not torch.isfinite(scheduler.alphas_cumprod).all()
        or betas.min() < 0
        or betas.max() > 1
    ):
        raise ConfigError(
            f"policy.noise_scheduler: the betas of {name} are not {trained} numbers from 0 to 1: "
            "there is no such schedule"
        )
    try:
        scheduler = sampler.prepared()
        timesteps = scheduler.timesteps
        if len(timesteps) < 1 or timesteps.min() < 0 or timesteps.max() >= trained:
            raise ValueError(f"its timesteps are not within 0 to {trained - 1}")
        number, generator = torch.zeros(1, 1, 1), torch.Generator().manual_seed(0)
        for timestep in [*timesteps[:2], *timesteps[2:][-2:]]:
            scheduler.step(number, timestep, number, generator=generator, **extra)
    except Exception as error:  # diffusers raises whatever the arithmetic of unfit settings raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(
            f"policy.noise_scheduler: {name} cannot take {steps} steps with these settings: {reason}"
        ) from error


def _text_of(value: Any) -> str:
    """A value for an error message, short whatever it is."""
    if (
        isinstance(value, (list, tuple))
        and len(value) <= 8
        and all(isinstance(item, (int, float, str, type(None))) for item in value)
    ):
        return "[" + ", ".join(_text_of(item) for item in value) + "]"
    if isinstance(value, (bool, float, type(None))) or isinstance(value, int) and abs(value) < 10**20:
        return repr(value)
    return repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
