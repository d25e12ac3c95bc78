"""The denoiser with the original's parameter names, of PyTorch's own layers."""

import math

import torch
from torch import nn


class SinusoidalPosEmb(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        half = self.dim // 2
        angles = t[:, None] * torch.exp(torch.arange(half, device=t.device) * -(math.log(10000) / (half - 1)))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TransformerForDiffusion(nn.Module):
    def __init__(
        self, input_dim, output_dim, horizon, n_obs_steps, cond_dim, n_layer=2, n_head=2, n_emb=32, n_cond_layers=0
    ):
        super().__init__()
        options = {"activation": "gelu", "batch_first": True, "norm_first": True, "dropout": 0.1}
        encoder_only = cond_dim == 0
        tokens = horizon + int(encoder_only)
        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.zeros(1, tokens, n_emb))
        self.drop = nn.Dropout(0.0)
        self.time_emb = SinusoidalPosEmb(n_emb)
        self.cond_obs_emb = self.cond_pos_emb = self.decoder = self.mask = self.memory_mask = None
        if encoder_only:
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(n_emb, n_head, 4 * n_emb, **options), n_layer, enable_nested_tensor=False
            )
        else:
            self.cond_obs_emb = nn.Linear(cond_dim, n_emb)
            self.cond_pos_emb = nn.Parameter(torch.zeros(1, 1 + n_obs_steps, n_emb))
            self.encoder = nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))
            if n_cond_layers:
                layer = nn.TransformerEncoderLayer(n_emb, n_head, 4 * n_emb, **options)
                self.encoder = nn.TransformerEncoder(layer, n_cond_layers, enable_nested_tensor=False)
            self.decoder = nn.TransformerDecoder(
                nn.TransformerDecoderLayer(n_emb, n_head, 4 * n_emb, **options), n_layer
            )
            rows = torch.arange(tokens)[:, None]
            for name, seen in (("mask", torch.arange(tokens)), ("memory_mask", torch.arange(1 + n_obs_steps) - 1)):
                delattr(self, name)
                self.register_buffer(name, torch.zeros(tokens, len(seen)).masked_fill(rows < seen, float("-inf")))
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)
        self._dummy_variable = nn.Parameter(torch.empty(0))

    def forward(self, sample, timestep, cond=None):
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(len(sample))
        time, x = self.time_emb(timesteps)[:, None], self.input_emb(sample)
        if self.decoder is None:
            x = torch.cat([time, x], dim=1)
            x = self.encoder(self.drop(x + self.pos_emb[:, : x.shape[1]]))[:, 1:]
        else:
            tokens = torch.cat([time, self.cond_obs_emb(cond)], dim=1)
            memory = self.encoder(self.drop(tokens + self.cond_pos_emb[:, : tokens.shape[1]]))
            x = self.drop(x + self.pos_emb[:, : x.shape[1]])
            x = self.decoder(tgt=x, memory=memory, tgt_mask=self.mask, memory_mask=self.memory_mask)
        return self.head(self.ln_f(x))
