"""Scale and offset by name, with the parameter names of the original's normaliser."""

import torch
from torch import nn


class SingleFieldLinearNormalizer:
    def __init__(self, params):
        self.params = params

    def normalize(self, x):
        return x * self.params["scale"] + self.params["offset"]

    def unnormalize(self, x):
        return (x - self.params["offset"]) / self.params["scale"]

    def get_input_stats(self):
        return self.params["input_stats"]


class LinearNormalizer(nn.Module):
    def __init__(self, limits):
        super().__init__()
        self.params_dict = nn.ParameterDict()
        for name, (low, high) in limits.items():
            stats = nn.ParameterDict({"min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 4})
            scale = 2 / (high - low)
            fields = {"scale": scale, "offset": -1 - scale * low, "input_stats": stats}
            self.params_dict[name] = nn.ParameterDict(fields)
        self.requires_grad_(False)

    def __getitem__(self, name):
        return SingleFieldLinearNormalizer(self.params_dict[name])

    def normalize(self, values):
        return {name: self[name].normalize(torch.as_tensor(value)) for name, value in values.items()}
