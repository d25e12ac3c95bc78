"""The policy with the original's attributes: everything is read when `predict_action` is called."""

import torch
from torch import nn


class DiffusionTransformerLowdimPolicy(nn.Module):
    def __init__(
        self,
        model,
        noise_scheduler,
        horizon,
        obs_dim,
        action_dim,
        n_action_steps,
        n_obs_steps,
        num_inference_steps=None,
        obs_as_cond=False,
        pred_action_steps_only=False,
        **kwargs,
    ):
        super().__init__()
        self.model, self.noise_scheduler, self.kwargs = model, noise_scheduler, kwargs
        self.horizon, self.obs_dim, self.action_dim = horizon, obs_dim, action_dim
        self.n_action_steps, self.n_obs_steps = n_action_steps, n_obs_steps
        self.obs_as_cond, self.pred_action_steps_only = obs_as_cond, pred_action_steps_only
        self.num_inference_steps = num_inference_steps or noise_scheduler.config.num_train_timesteps
        self.normalizer = None

    def set_normalizer(self, normalizer):
        self.normalizer = normalizer

    def reset(self):
        pass

    def conditional_sample(self, condition_data, condition_mask, cond=None, generator=None, **kwargs):
        trajectory = torch.randn(condition_data.shape, dtype=condition_data.dtype, generator=generator)
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for t in self.noise_scheduler.timesteps:
            trajectory[condition_mask] = condition_data[condition_mask]
            output = self.model(trajectory, t, cond)
            trajectory = self.noise_scheduler.step(output, t, trajectory, generator=generator, **kwargs).prev_sample
        trajectory[condition_mask] = condition_data[condition_mask]
        return trajectory

    @torch.no_grad()
    def predict_action(self, obs_dict):
        nobs = self.normalizer.normalize(obs_dict)["obs"]
        batch, steps, width = len(nobs), self.n_obs_steps, self.action_dim
        tokens = self.n_action_steps if self.pred_action_steps_only else self.horizon
        data = torch.zeros(batch, tokens, width + (0 if self.obs_as_cond else self.obs_dim))
        mask, cond = torch.zeros_like(data, dtype=torch.bool), None
        if self.obs_as_cond:
            cond = nobs[:, :steps]
        else:
            data[:, :steps, width:], mask[:, :steps, width:] = nobs[:, :steps], True
        sample = self.conditional_sample(data, mask, cond=cond, **self.kwargs)
        prediction = self.normalizer["action"].unnormalize(sample[..., :width])
        start = 0 if self.pred_action_steps_only else steps - 1
        return {"action": prediction[:, start : start + self.n_action_steps], "action_pred": prediction}
