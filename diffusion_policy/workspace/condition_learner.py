"""Teaching the condition encoder to see, before the denoiser learns to act on it.

The original initialisation hides observations from the denoiser: all weights start at a standard deviation of 0.02, so a
condition token varies by some thousandths from one observation to the next, and its MLP stays close to linear for
millions of windows. Where millimetres decide, most of a training goes into growing these weights. Here the embedding, the
condition MLP and, with images, the vision encoder learn alone, from single observations, at a part of a denoising step's cost.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError
from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy
from diffusion_policy.policy.observation_checks import unit_images


class ConditionLearner(nn.Module):
    """A policy whose condition token of the newest observation learns to foretell the action of that step.

    The actions have several modes, so what a token foretells is a mixture of Laplace distributions. Takes the place of
    the policy in `TrainWorkspace`; `trained_policy` is the policy to go on with. The denoiser's layers stay as they are.

    Args:
        policy: conditioned on observation tokens, with the MLP as condition encoder (`n_cond_layers=0`).
        embedding_std: standard deviation that the observation embedding's weights start from; the MLP's start as
            PyTorch's Linear does. None: keep the policy's weights.
        modes: of the mixture.
        also: name of another vector of the demonstrations -> how many of its leading numbers are foretold besides the action:
            where something is says more to a vision encoder than what one does about it. Needs `fit_targets`.
        finest: smallest scale of a Laplace distribution, in units of half an action's range or of the spread of what else is
            foretold. Being nearer than that is not rewarded further; without such an end the numbers that hardly vary, as a
            gripper's rotation, rule the gradient.
        random_crops: whether images are cropped at random, as in the denoiser's training; False: the centre, as in evaluation.
        scale_steps: the tokens are scaled by each batch's mean and standard deviation in the first so many steps, later as they
            were scaled last on average. A batch's own blur what a token says, with 32 observations by a sixth of its spread;
            use 0 to go on from a checkpoint of this objective.
    Raises:
        ConfigError: the policy is built otherwise.
    """

    def __init__(
        self,
        policy: DiffusionTransformerPolicy,
        embedding_std: float | None = 2.0,
        modes: int = 4,
        also: Mapping[str, int] | None = None,
        finest: float = 0.0025,
        random_crops: bool = True,
        scale_steps: int = 300,
    ):
        super().__init__()
        model = policy.model
        if model.cond_obs_emb is None or model.encoder_only or model.n_cond_layers:
            raise ConfigError(
                "objective=condition needs a policy with observation tokens (obs_as_cond=true) and "
                "the MLP as condition encoder (n_cond_layers=0)"
            )
        if finest <= 0:
            raise ConfigError(f"objective.finest is {finest}: a scale has to be positive")
        self.policy, self.modes, self.also, self.finest = policy, modes, dict(also or {}), finest
        self.random_crops, self.scale_steps = random_crops, scale_steps
        for untrained in (model.input_emb, model.decoder, model.ln_f, model.head):
            untrained.requires_grad_(False)
        # Normalising the tokens keeps their scale in hand; at the end it folds into the MLP's last layer, as it is then.
        self.scale = nn.BatchNorm1d(model.n_emb, affine=False)
        self.measured = nn.BatchNorm1d(model.n_emb, affine=False)
        further = sum(self.also.values())
        self.head = nn.Linear(model.n_emb, modes * (1 + 2 * (policy.action_dim + further)))
        self.register_buffer("further_mean", torch.zeros(further))
        self.register_buffer("further_std", torch.ones(further))
        if embedding_std is not None:
            nn.init.normal_(model.cond_obs_emb.weight, std=embedding_std)
            for layer in (model.encoder[0], model.encoder[2]):
                layer.reset_parameters()

    def fit_targets(self, dataset: torch.utils.data.Dataset) -> None:
        """Scales what is foretold besides the action by its spread in the demonstrations.

        Raises:
            ConfigError: the demonstrations lack it.
        """
        if not self.also:
            return
        fields = getattr(dataset, "vectors", None) or getattr(dataset, "fields", {})
        if missing := [name for name, size in self.also.items() if name not in fields or fields[name].shape[-1] < size]:
            raise ConfigError(
                f"objective.also asks for {', '.join(missing)}, which the demonstrations do not have or not in this size: "
                f"they have {', '.join(fields)}"
            )
        values = self.further({name: fields[name] for name in self.also})
        self.further_mean.copy_(values.mean(0))
        self.further_std.copy_(values.std(0).clamp(min=1e-4))

    def further(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """The numbers to foretell besides the action, side by side [..., F]."""
        return torch.cat([vectors[name][..., :size] for name, size in self.also.items()], dim=-1)

    def tokens(self, obs: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Observations [B, 1, *shape] by name, of one step -> its condition token [B, D]; `generator` for augmentation."""
        model = self.policy.model
        obs = {name: unit_images(name, value) if name in self.policy.cameras else value for name, value in obs.items()}
        features = self.policy.encode(self.policy.normalizer.normalize(obs), generator)
        newest = model.cond_pos_emb[:, self.policy.n_obs_steps]
        return model.encoder(model.cond_obs_emb(features[:, 0]) + newest)

    def log_likelihood(
        self, obs: dict[str, Tensor], action: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Of normalised actions [B, Da], or [B, Da + F] with what else is foretold, under the mixtures foretold from
        observations [B, 1, *shape] by name -> [B]."""
        tokens = self.tokens(obs, generator)
        if self.training:
            self.measured(tokens.detach())
            self.scale.train(bool(self.scale.num_batches_tracked < self.scale_steps))
        out = self.head(self.scale(tokens)).float().unflatten(-1, (self.modes, -1))
        logits, means, log_scales = out.split([1, action.shape[-1], action.shape[-1]], dim=-1)
        log_scales = log_scales.clamp(math.log(self.finest), 2.0)
        of_mode = -(log_scales + math.log(2) + (action[:, None] - means).abs() / log_scales.exp()).sum(-1)
        return torch.logsumexp(logits[..., 0].log_softmax(-1) + of_mode, dim=-1)

    def compute_loss(self, batch: dict[str, Tensor], generator: torch.Generator | None = None, **unused: Any) -> Tensor:
        """Negative log-likelihood of the normalised action; `batch` as of the policy's, `unused` are settings of denoising."""
        step = self.policy.n_obs_steps - 1
        obs = {name: batch[name][:, step : step + 1] for name in self.policy.obs_shapes}
        action = self.policy.normalizer["action"].normalize(batch["action"][:, step])
        if self.also:
            further = self.further({name: batch[name][:, step] for name in self.also})
            action = torch.cat([action, (further - self.further_mean) / self.further_std], dim=-1)
        return -self.log_likelihood(obs, action, generator).mean()

    def train(self, mode: bool = True) -> ConditionLearner:
        super().train(mode)
        if self.policy.cameras and not self.random_crops:
            self.policy.obs_encoder.training = False  # that alone: it decides where images are cropped
        return self

    def optimizer_groups(self, weight_decay: float) -> list[dict]:
        """The trained parameters; without decay, as the scale of the tokens is fixed."""
        return [
            {"params": [parameter for parameter in self.parameters() if parameter.requires_grad], "weight_decay": 0.0}
        ]

    @torch.no_grad()
    def trained_policy(self) -> DiffusionTransformerPolicy:
        """A copy of the policy, whose tokens have mean 0 and standard deviation 1 over the training steps."""
        policy = copy.deepcopy(self.policy)
        std = (self.measured.running_var + self.measured.eps).sqrt()
        last = policy.model.encoder[2]
        last.weight.div_(std[:, None])
        last.bias.sub_(self.measured.running_mean).div_(std)
        return policy
