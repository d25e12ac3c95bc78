"""The denoiser of Transformer Diffusion Policy: the "time-series diffusion transformer" of Chi et al. 2023, III-A."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_policy.model.diffusion.layers import MultiheadAttention, TransformerStack
from diffusion_policy.model.diffusion.positional_embedding import SinusoidalPosEmb


class TransformerForDiffusion(nn.Module):
    """Predicts the noise (or the clean sample) of a noisy trajectory.

    Two forms, chosen by where the timestep goes:
      * decoder form (`time_as_cond`): action tokens attend causally to themselves and, by cross-attention, to the
        condition tokens [time, observation 0, ..., observation To-1]. The condition tokens pass through an MLP
        (`n_cond_layers == 0`) or a Transformer encoder (`n_cond_layers > 0`) first.
      * encoder-only form (`time_as_cond=False`, no observations): [time, trajectory tokens] through one encoder, BERT
        style.

    Args:
        input_dim, output_dim: width of a trajectory element (actions, or actions + observations when inpainting).
        horizon: number of trajectory tokens T.
        n_obs_steps: number of observation tokens To; `horizon` when None.
        cond_dim: width of an observation; 0 means no observation tokens.
        obs_as_cond: kept for the original configs; like there, `cond_dim > 0` decides.
    Parameter names, initialisation and arithmetic follow the original implementation, so its checkpoints load.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        n_obs_steps: int | None = None,
        cond_dim: int = 0,
        n_layer: int = 12,
        n_head: int = 12,
        n_emb: int = 768,
        p_drop_emb: float = 0.1,
        p_drop_attn: float = 0.1,
        causal_attn: bool = False,
        time_as_cond: bool = True,
        obs_as_cond: bool = False,
        n_cond_layers: int = 0,
    ):
        super().__init__()
        obs_as_cond = cond_dim > 0
        if obs_as_cond and not time_as_cond:
            raise ValueError(
                "observations can only be condition tokens together with the time token: set time_as_cond=True"
            )
        n_obs_steps = horizon if n_obs_steps is None else n_obs_steps
        self.horizon, self.input_dim, self.output_dim = horizon, input_dim, output_dim
        self.cond_dim, self.n_obs_steps = cond_dim, n_obs_steps
        self.n_layer, self.n_head, self.n_emb, self.n_cond_layers = n_layer, n_head, n_emb, n_cond_layers
        self.time_as_cond, self.obs_as_cond, self.encoder_only = time_as_cond, obs_as_cond, not time_as_cond
        self.T = horizon if time_as_cond else horizon + 1
        self.T_cond = (1 + (n_obs_steps if obs_as_cond else 0)) if time_as_cond else 0

        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.zeros(1, self.T, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        self.time_emb = SinusoidalPosEmb(n_emb)
        self.cond_obs_emb = nn.Linear(cond_dim, n_emb) if obs_as_cond else None
        self.cond_pos_emb = None
        self.decoder = None
        if self.encoder_only:
            self.encoder = TransformerStack(n_layer, n_emb, n_head, p_drop_attn, cross=False)
        else:
            self.cond_pos_emb = nn.Parameter(torch.zeros(1, self.T_cond, n_emb))
            if n_cond_layers > 0:
                self.encoder = TransformerStack(n_cond_layers, n_emb, n_head, p_drop_attn, cross=False)
            else:
                self.encoder = nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))
            self.decoder = TransformerStack(n_layer, n_emb, n_head, p_drop_attn, cross=True)

        # Additive masks: token t sees tokens <= t, and observation s-1 once t >= s-1. That observation is condition
        # token s; token 0 is the time.
        self.mask: Tensor | None = None
        self.memory_mask: Tensor | None = None
        if causal_attn:
            t = torch.arange(self.T)
            del self.mask
            self.register_buffer("mask", _additive_mask(t[:, None] >= t[None, :]))
            if time_as_cond and obs_as_cond:
                s = torch.arange(self.T_cond)
                del self.memory_mask
                self.register_buffer("memory_mask", _additive_mask(t[:, None] >= s[None, :] - 1))

        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)
        # An empty parameter the original code uses to ask a module for its device; kept because checkpoints name it.
        self._dummy_variable = nn.Parameter(torch.empty(0))
        self._init_weights()

    @torch.no_grad()
    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0.0, 0.02)
                module.bias.zero_()
            elif isinstance(module, MultiheadAttention):
                module.in_proj_weight.normal_(0.0, 0.02)
                module.in_proj_bias.zero_()
        self.pos_emb.normal_(0.0, 0.02)
        if self.cond_obs_emb is not None:
            self.cond_pos_emb.normal_(0.0, 0.02)

    @property
    def trunk(self) -> TransformerStack:
        """The stack whose residual branches are the cacheable blocks: the decoder, or the only encoder."""
        return self.encoder if self.encoder_only else self.decoder

    def embed_time(self, timestep: Tensor | int, batch: int, device: torch.device) -> Tensor:
        """Timestep (int, scalar tensor or [B]) -> raw time token [B, 1, D]."""
        timesteps = torch.as_tensor(timestep, device=device).reshape(-1).expand(batch)
        return self.time_emb(timesteps).to(self.pos_emb.dtype).unsqueeze(1)

    def encode_condition(self, time_token: Tensor, cond: Tensor | None) -> Tensor:
        """Raw time token [B, 1, D], observations [B, To, cond_dim] -> memory [B, 1 + To, D] for the cross-attention.

        Raises:
            ValueError: the model needs observations, and `cond` is None.
        """
        tokens = time_token
        if self.obs_as_cond:
            if cond is None:
                raise ValueError("this model is conditioned on observations: pass cond [B, To, cond_dim]")
            tokens = torch.cat([tokens, self.cond_obs_emb(cond)], dim=1)
        return self.encoder(self.drop(tokens + self.cond_pos_emb[:, : tokens.shape[1]]))

    def embed_trajectory(self, sample: Tensor, time_token: Tensor) -> Tensor:
        """Noisy trajectory [B, T, input_dim] -> trunk input [B, T (+1 for the encoder-only time token), D]."""
        x = self.input_emb(sample)
        if self.encoder_only:
            x = torch.cat([time_token, x], dim=1)
        return self.drop(x + self.pos_emb[:, : x.shape[1]])

    def masks(self, tokens: int, memory_tokens: int = 0) -> tuple[Tensor | None, Tensor | None]:
        """Self- and cross-attention masks cut to the number of tokens in use."""
        mask = None if self.mask is None else self.mask[:tokens, :tokens]
        memory_mask = None if self.memory_mask is None else self.memory_mask[:tokens, :memory_tokens]
        return mask, memory_mask

    def read_out(self, x: Tensor) -> Tensor:
        """Trunk output -> prediction [B, T, output_dim]; drops the encoder-only time token."""
        return self.head(self.ln_f(x[:, 1:] if self.encoder_only else x))

    def forward(self, sample: Tensor, timestep: Tensor | int, cond: Tensor | None = None) -> Tensor:
        """sample [B, T, input_dim], timestep int or [B], cond [B, To, cond_dim] -> prediction [B, T, output_dim]."""
        time_token = self.embed_time(timestep, sample.shape[0], sample.device)
        x = self.embed_trajectory(sample, time_token)
        memory = None if self.encoder_only else self.encode_condition(time_token, cond)
        mask, memory_mask = self.masks(x.shape[1], 0 if memory is None else memory.shape[1])
        return self.read_out(self.trunk(x, memory, mask, memory_mask))

    def optimizer_groups(self, weight_decay: float) -> list[dict]:
        """AdamW groups: matrices of Linear and attention layers decay; biases, norms and embeddings do not."""
        decay = {
            id(m.in_proj_weight if isinstance(m, MultiheadAttention) else m.weight)
            for m in self.modules()
            if isinstance(m, (nn.Linear, MultiheadAttention))
        }
        groups = {True: [], False: []}
        for parameter in self.parameters():
            groups[id(parameter) in decay].append(parameter)
        return [{"params": groups[True], "weight_decay": weight_decay}, {"params": groups[False], "weight_decay": 0.0}]


def _additive_mask(visible: Tensor) -> Tensor:
    """Boolean [T, S] -> float mask with 0 where visible and -inf elsewhere."""
    return torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))
