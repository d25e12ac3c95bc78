"""Small transformer denoisers that are not of this project, with random weights, and a loop of their own.

RDT's layer is written from its published description (Liu et al. 2025), the action expert's from that of pi0's (Gemma).
This file and `caching_suite` need torch and `bac` alone: they also run where LeRobot is installed and pytest is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, TOKENS, ACTION, CONDITION = 32, 2, 5, 3, 4
STEPS = 6


@dataclass(frozen=True)
class Case:
    """A denoiser and how a loop calls it: call(model, x [B, T, A], t [B], condition [B, C]) -> velocity [B, T, A]."""

    model: nn.Module
    call: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]

    def sample(self, batch: int = 1, seed: int = 0, steps: int = STEPS) -> Tensor:
        """Euler's method from noise to actions [B, T, A]; a row does not depend on the batch it is in."""
        rows = [torch.Generator().manual_seed(seed + row) for row in range(batch)]
        x = torch.cat([torch.randn(1, TOKENS, ACTION, generator=row) for row in rows])
        condition = torch.cat([torch.randn(1, CONDITION, generator=row) for row in rows])
        for step in range(steps):
            x = x + self.call(self.model, x, torch.full((batch,), step / steps), condition) / steps
        return x


class RMSNorm(nn.Module):
    """As `nn.RMSNorm`, which PyTorch has since 2.4."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weight


def time_features(t: Tensor, width: int = WIDTH) -> Tensor:
    """[B] -> [B, width]."""
    angles = 100 * t[:, None] * torch.exp(-math.log(1000) * torch.arange(width // 2) / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Wrapped(nn.Module):
    """Embedding, layers and head; a subclass says what the layers are."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.embed, self.head = nn.Linear(ACTION, WIDTH), nn.Linear(WIDTH, ACTION)
        self.condition = nn.Linear(CONDITION, WIDTH)
        self.layers = layers

    def features(self, t: Tensor, condition: Tensor) -> Tensor:
        return time_features(t) + self.condition(condition)  # [B, D]


class TorchDecoder(Wrapped):
    def __init__(self) -> None:
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, 0.1, "gelu", batch_first=True, norm_first=True)
        super().__init__(nn.TransformerDecoder(layer, 2))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        memory = torch.stack([time_features(t), self.condition(condition)], dim=1)
        return self.head(self.layers(self.embed(x), memory, tgt_mask=mask))


class TorchEncoder(Wrapped):
    """An odd number of heads: PyTorch's fused encoder kernel does not take it."""

    def __init__(self, heads: int = 1) -> None:
        layer = nn.TransformerEncoderLayer(WIDTH, heads, 64, 0.1, "gelu", batch_first=True, norm_first=True)
        super().__init__(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        tokens = torch.cat([self.features(t, condition)[:, None], self.embed(x)], dim=1)
        return self.head(self.layers(tokens)[:, 1:])


class DiTLayer(nn.Module):
    """Peebles and Xie 2023, figure 3: gates, scales and shifts of both branches from the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.multihead_attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(features)[:, None].chunk(6, dim=-1)
        n = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.multihead_attn(n, n, n)[0]  # the module gives its weights, too
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class DiT(Wrapped):
    def __init__(self) -> None:
        super().__init__(nn.ModuleList(DiTLayer() for _ in range(2)))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        features, x = self.features(t, condition), self.embed(x)
        for layer in self.layers:
            x = layer(x, features)
        return self.head(x)


class RDTAttention(nn.Module):
    """Multi-head attention whose queries and keys are normalised (QKNorm); over `c` where it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q_norm, self.k_norm = RMSNorm(WIDTH // HEADS), RMSNorm(WIDTH // HEADS)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        k, v = self.kv(x if c is None else c).unflatten(-1, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        q = self.q(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(y.transpose(1, 2).flatten(-2))


class RDTLayer(nn.Module):
    """Pre-norm RMSNorm, then self-attention, cross-attention and feed-forward, each a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = RMSNorm(WIDTH), RMSNorm(WIDTH), RMSNorm(WIDTH)
        self.attn, self.cross_attn = RDTAttention(), RDTAttention()
        self.ffn = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(approximate="tanh"), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), c)
        return x + self.ffn(self.norm3(x))


class RDT(Wrapped):
    """Time is a token beside the actions; layers attend to language and image tokens in turn."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__(nn.ModuleList(RDTLayer() for _ in range(layers)))
        self.language, self.images = nn.Linear(CONDITION, 2 * WIDTH), nn.Linear(CONDITION, 3 * WIDTH)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        conditions = [project(condition).unflatten(-1, (-1, WIDTH)) for project in (self.language, self.images)]
        x = torch.cat([time_features(t)[:, None], self.embed(x)], dim=1)
        for index, layer in enumerate(self.layers):
            x = layer(x, conditions[index % 2])
        return self.head(x[:, 1:])


class ExpertAttention(nn.Module):
    """Grouped-query attention of the action tokens to themselves and to keys and values of a prefix."""

    def __init__(self) -> None:
        super().__init__()
        half = WIDTH // HEADS
        self.q_proj, self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj, self.v_proj = nn.Linear(WIDTH, half, bias=False), nn.Linear(WIDTH, half, bias=False)

    def forward(self, x: Tensor, prefix: Tensor) -> tuple[Tensor, None]:
        q = self.q_proj(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        tokens = torch.cat([prefix, x], dim=1)
        k, v = (
            project(tokens)[:, None].expand(-1, HEADS, -1, -1).contiguous() for project in (self.k_proj, self.v_proj)
        )
        return self.o_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)), None


class ExpertMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(WIDTH, 64, bias=False), nn.Linear(WIDTH, 64, bias=False)
        self.down_proj = nn.Linear(64, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class ExpertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(WIDTH), RMSNorm(WIDTH)
        self.self_attn, self.mlp = ExpertAttention(), ExpertMLP()

    def forward(self, x: Tensor, prefix: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), prefix)[0]
        return x + self.mlp(self.post_attention_layernorm(x))


class ActionExpert(Wrapped):
    """The loop calls `denoise_step`, as pi0's does."""

    def __init__(self) -> None:
        super().__init__(nn.ModuleList(ExpertLayer() for _ in range(2)))

    def denoise_step(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        x, prefix = self.embed(x) + time_features(t)[:, None], self.condition(condition)[:, None]
        for layer in self.layers:
            x = layer(x, prefix)
        return self.head(x)


def _plain_call(model: nn.Module, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    return model(x, t, condition)


def _expert_call(model: nn.Module, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    return model.denoise_step(x, t, condition)


@torch.no_grad()
def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights so large that every block matters, gates that start at zero included."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise * parameter.shape[-1] ** -0.5)
        else:
            parameter.copy_((1.0 if "norm" in name and name.endswith("weight") else 0.0) + 0.2 * noise)
    return model.eval()


#: name -> (model class, what its loop calls)
MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "torch decoder": (TorchDecoder, "forward"),
    "torch encoder": (TorchEncoder, "forward"),
    "DiT": (DiT, "forward"),
    "RDT": (RDT, "forward"),
    "action expert": (ActionExpert, "denoise_step"),
}


def case_of(name: str) -> Case:
    make, method = MODELS[name]
    return Case(randomised(make()), _plain_call if method == "forward" else _expert_call)
