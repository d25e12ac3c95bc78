"""Teaching the condition encoder to see, before the denoiser learns to act on it.

The original initialisation hides observations from the denoiser: all weights start at a standard deviation of 0.02, so
a condition token varies by some thousandths from one observation to the next, and its MLP stays close to linear for
millions of windows. Where millimetres decide, most of a training goes into growing these weights. Here the embedding,
the condition MLP and, with images, the vision encoder learn alone, from single observations, at a part of the cost of a
denoising step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from diffusion_policy.common.config import ConfigError
from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy
from diffusion_policy.policy.observation_checks import unit_images
from diffusion_policy.workspace.objectives.contract import set_random_crops


class ConditionObjective(nn.Module):
    """The condition token of the newest observation learns to predict the action of that step.

    The actions have several modes, so a token predicts a mixture of Laplace distributions. The denoiser's layers stay
    as they are; the policy is the start of a denoising training.

    Args:
        policy: conditioned on observation tokens, with the MLP as condition encoder (`n_cond_layers=0`). Trained in
            place.
        embedding_std: standard deviation that the observation embedding's weights start from; the MLP's start as
            PyTorch's Linear does. None: keep the policy's weights.
        modes: of the mixture.
        auxiliary_targets: name of another vector of the demonstrations -> how many of its leading numbers are predicted
            besides the action: where something is says more to a vision encoder than what one does about it.
        min_scale: smallest scale of a Laplace distribution, in units of half an action's range, or of the standard
            deviation of an auxiliary target. Being nearer than that is not rewarded further; without such an end the
            numbers that hardly vary, as a gripper's rotation, rule the gradient.
        random_crops: whether images are cropped at random, as in the denoiser's training; False: the centre, as in
            evaluation.
        scale_steps: the tokens are scaled by each batch's mean and standard deviation in the first so many steps, later
            as they were scaled last on average. A batch's own blur what a token says, with 32 observations by a sixth
            of its spread; use 0 to go on from a checkpoint of this objective.
    Raises:
        ConfigError: the policy is built otherwise, or a setting is out of range.
    """

    needs_init_checkpoint = False
    policy_acts = False  # its denoiser has learned nothing
    recordable = False  # the scaling of the tokens changes on the way

    def __init__(
        self,
        policy: DiffusionTransformerPolicy,
        embedding_std: float | None = 2.0,
        modes: int = 4,
        auxiliary_targets: Mapping[str, int] | None = None,
        min_scale: float = 0.0025,
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
        if min_scale <= 0:
            raise ConfigError(f"objective.min_scale is {min_scale}: a scale has to be positive")
        self.policy, self.modes, self.min_scale = policy, modes, min_scale
        self.auxiliary_targets = dict(auxiliary_targets or {})
        for name, size in self.auxiliary_targets.items():
            if type(size) is not int or size < 1:
                raise ConfigError(f"objective.auxiliary_targets.{name}={size}: say how many of its numbers, at least 1")
        self.random_crops, self.scale_steps = random_crops, scale_steps
        for untrained in (model.input_emb, model.decoder, model.ln_f, model.head):
            untrained.requires_grad_(False)
        # Normalising the tokens keeps their scale in hand; in the end it folds into the MLP's last layer.
        self.scale = nn.BatchNorm1d(model.n_emb, affine=False)
        self.measured = nn.BatchNorm1d(model.n_emb, affine=False)
        n_auxiliary = sum(self.auxiliary_targets.values())
        self.head = nn.Linear(model.n_emb, modes * (1 + 2 * (policy.action_dim + n_auxiliary)))
        self.register_buffer("auxiliary_mean", torch.zeros(n_auxiliary))
        self.register_buffer("auxiliary_std", torch.ones(n_auxiliary))
        if embedding_std is not None:
            nn.init.normal_(model.cond_obs_emb.weight, std=embedding_std)
            for layer in (model.encoder[0], model.encoder[2]):
                layer.reset_parameters()

    def prepare(self, train: Dataset, val: Dataset | None, folder: Path, seed: int) -> tuple[Dataset, Dataset | None]:
        """The data sets as they are, once auxiliary targets are scaled by their spread in the demonstrations.

        Raises:
            ConfigError: the demonstrations lack a target.
        """
        if self.auxiliary_targets:
            vectors = getattr(train, "vectors", None) or getattr(train, "fields", {})
            missing = [
                name
                for name, size in self.auxiliary_targets.items()
                if name not in vectors or vectors[name].shape[-1] < size
            ]
            if missing:
                raise ConfigError(
                    f"objective.auxiliary_targets asks for {', '.join(missing)}, which the demonstrations do not have "
                    f"or not in this size: they have {', '.join(vectors)}"
                )
            values = self.auxiliary_values(vectors)
            self.auxiliary_mean.copy_(values.mean(0))
            self.auxiliary_std.copy_(values.std(0).clamp(min=1e-4))
        return train, val

    def auxiliary_values(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Vectors [..., D] by name -> the numbers to predict besides the action, side by side [..., F]."""
        return torch.cat([vectors[name][..., :size] for name, size in self.auxiliary_targets.items()], dim=-1)

    def tokens(self, obs: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Observations [B, 1, *shape] by name, of one step -> its condition token [B, D]; `generator` for the crops."""
        model = self.policy.model
        obs = {name: unit_images(name, value) if name in self.policy.cameras else value for name, value in obs.items()}
        features = self.policy.encode(self.policy.normalizer.normalize(obs), generator)
        newest = model.cond_pos_emb[:, self.policy.n_obs_steps]
        return model.encoder(model.cond_obs_emb(features[:, 0]) + newest)

    def log_likelihood(
        self, obs: dict[str, Tensor], targets: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Log-likelihood [B], in nats, of `targets` under the mixtures that are predicted from `obs`.

        Args:
            obs: [B, 1, *shape] by name.
            targets: normalised actions [B, Da], or with auxiliary targets [B, Da + F].
        """
        tokens = self.tokens(obs, generator)
        if self.training:
            self.measured(tokens.detach())
            self.scale.train(bool(self.scale.num_batches_tracked < self.scale_steps))
        out = self.head(self.scale(tokens)).float().unflatten(-1, (self.modes, -1))  # [B, modes, 1 + 2 (Da + F)]
        logits, means, log_scales = out.split([1, targets.shape[-1], targets.shape[-1]], dim=-1)
        log_scales = log_scales.clamp(math.log(self.min_scale), 2.0)
        of_mode = -(log_scales + math.log(2) + (targets[:, None] - means).abs() / log_scales.exp()).sum(-1)
        return torch.logsumexp(logits[..., 0].log_softmax(-1) + of_mode, dim=-1)

    def compute_loss(
        self,
        batch: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
        snr_gamma: float | None = None,
        noise_draws: int = 1,
    ) -> Tensor:
        """Negative log-likelihood of the normalised action, in nats; `batch` as in the policy's `compute_loss`.

        There is no denoising that `snr_gamma` and `noise_draws` could matter to.
        """
        step = self.policy.n_obs_steps - 1
        obs = {name: batch[name][:, step : step + 1] for name in self.policy.obs_shapes}
        targets = self.policy.normalizer["action"].normalize(batch["action"][:, step])
        if self.auxiliary_targets:
            values = self.auxiliary_values({name: batch[name][:, step] for name in self.auxiliary_targets})
            targets = torch.cat([targets, (values - self.auxiliary_mean) / self.auxiliary_std], dim=-1)
        return -self.log_likelihood(obs, targets, generator).mean()

    def train(self, mode: bool = True) -> ConditionObjective:
        super().train(mode)
        set_random_crops(self.policy, mode and self.random_crops)
        return self

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The trained parameters; without decay, as the scale of the tokens is fixed."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [{"params": trained, "weight_decay": 0.0}]

    @torch.no_grad()
    def trained_policy(self) -> DiffusionTransformerPolicy:
        """A copy of the policy, whose tokens have mean 0 and standard deviation 1 over the training steps."""
        policy = copy.deepcopy(self.policy)
        std = (self.measured.running_var + self.measured.eps).sqrt()
        last = policy.model.encoder[2]
        last.weight.div_(std[:, None])
        last.bias.sub_(self.measured.running_mean).div_(std)
        return policy
