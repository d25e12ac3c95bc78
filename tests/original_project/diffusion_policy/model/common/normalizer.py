"""Scale and offset by name, with the parameter names of the original's normaliser."""

import torch
from torch import nn


class SingleFieldLinearNormalizer(nn.Module):
    def __init__(self, low, high):
        super().__init__()
        stats = nn.ParameterDict({"min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 4})
        scale = 2 / (high - low)
        self.params_dict = nn.ParameterDict({"scale": scale, "offset": -1 - scale * low, "input_stats": stats})
        self.requires_grad_(False)

    def normalize(self, x):
        return x * self.params_dict["scale"] + self.params_dict["offset"]

    def unnormalize(self, x):
        return (x - self.params_dict["offset"]) / self.params_dict["scale"]

    def get_input_stats(self):
        return self.params_dict["input_stats"]


class LinearNormalizer(nn.Module):
    def __init__(self, limits):
        super().__init__()
        self.params_dict = nn.ModuleDict(
            {name: SingleFieldLinearNormalizer(*map(torch.as_tensor, pair)) for name, pair in limits.items()}
        )

    def __getitem__(self, name):
        return self.params_dict[name]

    def normalize(self, values):
        return {name: self[name].normalize(value) for name, value in values.items()}
