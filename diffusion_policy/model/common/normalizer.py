"""Per-dimension affine normalisation stored with the policy, in the original project's state-dict layout:
`params_dict.<field>.{scale, offset, input_stats.{min, max, mean, std}}` with `x_normalised = x * scale + offset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

STATS = ("min", "max", "mean", "std")


class FieldNormalizer(nn.Module):
    """Normalises one field whose last dimension has size D, or images with one scale for all their pixels."""

    def __init__(self, scale: Tensor, offset: Tensor, stats: Mapping[str, Tensor]):
        super().__init__()
        self.scale, self.offset = _frozen(scale), _frozen(offset)
        self.input_stats = nn.ParameterDict({name: _frozen(stats[name]) for name in STATS})

    @classmethod
    @torch.no_grad()
    def fit(cls, data: Tensor, mode: str = "limits", range_eps: float = 1e-4) -> FieldNormalizer:
        """Fits data [..., D].

        Args:
            mode: 'limits' maps each dimension's [min, max] to [-1, 1]; 'gaussian' to zero mean, unit deviation;
                'max_abs' divides all by the largest absolute value among them; 'identity' changes nothing.
            range_eps: with the first two, a dimension whose range or deviation is below this is only shifted, never
                blown up.
        Raises:
            ValueError: there is no such mode.
        """
        data = torch.as_tensor(data, dtype=torch.float32).reshape(-1, data.shape[-1])
        low, high, mean, std = data.amin(0), data.amax(0), data.mean(0), data.std(0)
        if mode == "limits":
            constant = (high - low) < range_eps
            scale = torch.where(constant, 1.0, 2.0 / (high - low))
            offset = torch.where(constant, -low, -1.0 - scale * low)
        elif mode == "gaussian":
            scale = torch.where(std < range_eps, 1.0, 1.0 / std)
            offset = -mean * scale
        elif mode in ("max_abs", "identity"):
            largest = data.abs().max() if mode == "max_abs" else torch.ones(())
            scale = torch.ones_like(mean) / torch.where(largest > 0, largest, 1.0)
            offset = torch.zeros_like(mean)
        else:
            raise ValueError(f"unknown normalizer mode {mode!r}: use 'limits', 'gaussian', 'max_abs' or 'identity'")
        return cls(scale, offset, {"min": low, "max": high, "mean": mean, "std": std})

    @classmethod
    def identity(cls, dim: int) -> FieldNormalizer:
        one, zero = torch.ones(dim), torch.zeros(dim)
        return cls(one, zero, {"min": -one, "max": one, "mean": zero, "std": one})

    @classmethod
    def concatenated(cls, parts: Sequence[FieldNormalizer]) -> FieldNormalizer:
        """Normalises consecutive parts of one field each in its own way."""
        stats = {name: torch.cat([part.input_stats[name] for part in parts]) for name in STATS}
        return cls(torch.cat([part.scale for part in parts]), torch.cat([part.offset for part in parts]), stats)

    @classmethod
    def image(cls) -> FieldNormalizer:
        """Maps pixel values [0, 1] of any shape to [-1, 1], with one scale for all, whatever the data."""
        one = torch.ones(1)  # the statistics are those of the uniform distribution
        return cls(2 * one, -one, {"min": 0 * one, "max": one, "mean": 0.5 * one, "std": (one / 12).sqrt()})

    def normalize(self, x: Tensor) -> Tensor:
        return x.to(self.scale) * self.scale + self.offset

    def unnormalize(self, x: Tensor) -> Tensor:
        return (x.to(self.scale) - self.offset) / self.scale


def _frozen(values: Tensor) -> nn.Parameter:
    """A parameter [D] that no optimizer changes."""
    return nn.Parameter(values.detach().clone().reshape(-1), requires_grad=False)


class LinearNormalizer(nn.Module):
    """A FieldNormalizer for each named field ('obs', 'action', ...)."""

    def __init__(self, fields: Mapping[str, FieldNormalizer] | None = None):
        super().__init__()
        self.params_dict = nn.ModuleDict(dict(fields or {}))

    @classmethod
    def fit(cls, data: Mapping[str, Tensor], mode: str = "limits") -> LinearNormalizer:
        return cls({name: FieldNormalizer.fit(values, mode) for name, values in data.items()})

    def __getitem__(self, field: str) -> FieldNormalizer:
        if field not in self.params_dict:
            known = ", ".join(self.params_dict) or "nothing (was set_normalizer called?)"
            raise KeyError(f"the normalizer holds no field {field!r}; it holds {known}")
        return self.params_dict[field]

    def normalize(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self[name].normalize(values) for name, values in batch.items()}

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Creates the fields a checkpoint holds before they are loaded, so that a fresh policy needs no data set."""
        start = prefix + "params_dict."
        names = {key[len(start) :].split(".")[0] for key in state_dict if key.startswith(start)}
        for name in sorted(names - set(self.params_dict)):
            scale = state_dict.get(f"{start}{name}.scale")
            if scale is not None:
                self.params_dict[name] = FieldNormalizer.identity(scale.numel()).to(scale.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
