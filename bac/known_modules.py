"""The parts of a model whose computation the runtimes know; anything else would be bypassed without a word.

The fast runtimes do the arithmetic of known modules themselves. A module of another class (an adapter, a quantised
layer), a hook or a replaced method would be left out, so they are refused.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as _modules

from bac.errors import UserError

_MODEL = "diffusion_policy.model.diffusion"
#: whose `forward` no runtime calls: they go through the layers themselves
_CONTAINERS = frozenset(
    {
        f"{_MODEL}.transformer_for_diffusion.TransformerForDiffusion",
        f"{_MODEL}.layers.TransformerStack",
        f"{_MODEL}.layers.TransformerLayer",
    }
)
_TORCH = (nn.Linear, nn.LayerNorm, nn.Dropout, nn.Mish, nn.Sequential, nn.ModuleList)
#: whose arithmetic the planned and compiled runtimes do themselves. Classes are known by their full names, as this
#: package imports no policy's code.
_KNOWN = (
    _CONTAINERS
    | {f"{_MODEL}.layers.MultiheadAttention", f"{_MODEL}.dropout.Dropout"}
    | {f"{_MODEL}.positional_embedding.SinusoidalPosEmb"}
    | {f"{cls.__module__}.{cls.__qualname__}" for cls in _TORCH}
)

_VISION = "diffusion_policy.model.vision"
#: of the vision encoder that the native library knows
_ENCODER = frozenset(
    {
        f"{_VISION}.observation_encoder.ObservationEncoder",
        f"{_VISION}.observation_encoder.CameraEncoder",
        f"{_VISION}.resnet.ResNet18Conv",
        f"{_VISION}.resnet.ResidualBlock",
        f"{_VISION}.spatial_softmax.SpatialSoftmax",
    }
    | {
        f"{cls.__module__}.{cls.__qualname__}"
        for cls in (nn.Conv2d, nn.GroupNorm, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Linear)
        + (nn.Sequential, nn.ModuleDict)
    }
)


class UnknownModule(UserError, ValueError):
    """A model has a part whose computation a runtime would leave out."""


def check_containers(model: nn.Module) -> None:
    """Refuses what every runtime would bypass, `reference` too: hooks, other classes and replaced methods of the model,
    its stacks and layers.

    Raises:
        UnknownModule: naming the module.
    """
    _refuse_global_hooks()
    containers = _CONTAINERS | _also_known(model)
    for name, module in model.named_modules():
        if any(_full_name(cls) in containers for cls in type(module).__mro__):
            reason = _strange(module, containers)
            if reason:
                raise UnknownModule(
                    f"{_name(name)} {reason}, which block-wise caching would bypass: "
                    "take it off, or use the policy plainly"
                )


def check_modules(model: nn.Module, runtime: str) -> None:
    """Refuses whatever the planned and compiled runtimes would bypass.

    Raises:
        UnknownModule: naming the module; `reference` honours what is inside of a layer.
    """
    _refuse_global_hooks()
    foreign = foreign_part(model)
    if foreign is not None:
        raise UnknownModule(
            f"{foreign}, which runtime={runtime} would bypass: merge it into the weights "
            "(merge_and_unload(), remove_parametrizations(), dequantise), or use runtime=reference"
        )


def foreign_part(model: nn.Module) -> str | None:
    """The first part of a model whose computation is not known here, in words; None: there is none."""
    return _first_foreign(model, _KNOWN | _also_known(model), "the model", "the model's")


def foreign_encoder_part(encoder: nn.Module) -> str | None:
    """Likewise of a vision encoder."""
    reason = _strange(encoder, frozenset({f"{_VISION}.observation_encoder.ObservationEncoder"}))
    return f"it {reason}" if reason else _first_foreign(encoder, _ENCODER, "it", "its")


def _also_known(model: Any) -> frozenset[str]:
    """Classes that only a model of another make is built of (see `bac.original.denoiser`)."""
    return getattr(model, "known_modules", frozenset())


def _first_foreign(model: nn.Module, known: frozenset[str], whole: str, owner: str) -> str | None:
    for name, module in model.named_modules():
        reason = _strange(module, known) or _strange_parameter(module)
        if reason:
            return f"{f'{owner} {name}' if name else whole} {reason}"
    return None


def _refuse_global_hooks() -> None:
    """Raises:
    UnknownModule: PyTorch calls something at every module's forward, which runtimes do not call.
    """
    if _modules._global_forward_hooks or _modules._global_forward_pre_hooks:
        raise UnknownModule(
            "a forward hook of all modules is registered (register_module_forward_hook), which block-wise caching "
            "would bypass: take it off, or use the policy plainly"
        )


def _name(name: str) -> str:
    return f"the model's {name}" if name else "the model"


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _strange(module: nn.Module, known: frozenset[str]) -> str | None:
    if _full_name(type(module)) not in known:
        return f"is a {_full_name(type(module))}"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has a forward hook"
    replaced = [name for name in vars(module) if callable(getattr(type(module), name, None))]
    return f"has a replaced method {replaced[0]}()" if replaced else None


def _strange_parameter(module: nn.Module) -> str | None:
    for name, parameter in module._parameters.items():
        if parameter is not None and (
            type(parameter) is not nn.Parameter or type(parameter.data) is not Tensor or parameter.is_sparse
        ):
            return f"keeps its {name} as a {type(parameter.data).__name__}"
    return None
