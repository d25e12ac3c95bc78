"""The condition objective: tokens that say what to do, before the denoiser learns."""

from __future__ import annotations

import pytest
import torch
from hydra.errors import InstantiationException

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.workspace.objectives.condition import ConditionObjective
from diffusion_policy.workspace.train_workspace import TrainWorkspace

CONDITION = [
    "objective=condition",
    "task.policy.model.n_layer=1",
    "training.batch_size=64",
    "training.validate_every=0",
]


@torch.no_grad()
def tokens(policy, workspace):
    """Condition tokens of the newest observations of the training windows."""
    batch = workspace.train_set[torch.arange(len(workspace.train_set))]
    obs = policy.normalizer.normalize({"obs": batch["obs"][:, :3]})["obs"]
    return policy.model.encode_condition(policy.model.embed_time(0, len(obs), "cpu"), obs)[:, 3]


def test_condition_tokens_learn_and_are_standardised(train_condition_task):
    workspace = train_condition_task(
        "condition", *CONDITION, "training.max_steps=150", "training.checkpoint_every=150", "training.save_every=0"
    )
    before = workspace.validate()
    workspace.run()
    assert workspace.validate() < before - 0.2
    token = tokens(load_policy(workspace.output_dir / "checkpoints" / "step-000150").policy, workspace)
    assert token.mean(0).abs().max() < 0.3
    torch.testing.assert_close(token.std(0), torch.ones(32), atol=0.25, rtol=0)


def test_other_vectors_of_the_demonstrations_are_predicted_with_the_action(train_condition_task):
    settings = [*CONDITION, "training.max_steps=150", "training.checkpoint_every=150", "training.save_every=150"]
    workspace = train_condition_task("auxiliary", *settings, "objective.auxiliary_targets={obs: 3}")
    objective, batch = workspace.objective, workspace.train_set[torch.arange(64)]
    assert objective.head.out_features == 4 * (1 + 2 * (2 + 3))
    values = workspace.train_set.fields["obs"][:, :3]
    torch.testing.assert_close(objective.auxiliary_mean, values.mean(0))
    torch.testing.assert_close(objective.auxiliary_std, values.std(0))

    @torch.no_grad()
    def prediction(objective):  # numbers of the observation, scaled; of the likeliest mode
        out = objective.head(objective.scale(objective.tokens({"obs": batch["obs"][:, 2:3]}))).unflatten(-1, (4, -1))
        return out[torch.arange(64), out[..., 0].argmax(-1), 3:6]

    wanted = (batch["obs"][:, 2, :3] - objective.auxiliary_mean) / objective.auxiliary_std
    before = (prediction(objective.eval()) - wanted).abs().mean()
    workspace.run()
    assert (prediction(objective.eval()) - wanted).abs().mean() < 0.6 * before
    resumed = train_condition_task("auxiliary", *settings, "objective.auxiliary_targets={obs: 3}")
    resumed.load_state()
    torch.testing.assert_close(resumed.objective.auxiliary_std, objective.auxiliary_std)


@pytest.mark.parametrize("targets", ["{object_pose: 3}", "{obs: 17}"])
def test_what_the_demonstrations_lack_cannot_be_predicted(train_condition_task, targets):
    with pytest.raises(ConfigError, match="objective.auxiliary_targets asks for.*they have obs, action"):
        train_condition_task("auxiliary", *CONDITION, f"objective.auxiliary_targets={targets}")


def test_an_interrupted_condition_training_resumes_to_the_same_weights(train_condition_task):
    settings = [
        *CONDITION,
        "training.checkpoint_every=4",
        "training.lr_schedule=trapezoid",
        "training.decay_fraction=0.01",
    ]
    whole = train_condition_task("whole", *settings, "training.max_steps=4")
    whole.run()
    part = train_condition_task("part", *settings, "training.max_steps=2", "training.save_every=2")
    part.run()
    rest = train_condition_task("part", *settings, "training.max_steps=4")
    rest.run()
    a, b = (tokens(load_policy(w.output_dir / "checkpoints" / "step-000004").policy, whole) for w in (whole, rest))
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0)  # half precision
    assert (a - tokens(part.ema.averaged.trained_policy(), whole)).abs().max() > 0.05  # two steps matter


def test_an_optimizer_of_other_parameters_is_refused(train_condition_task):
    stopped = train_condition_task(
        "run", *CONDITION, "training.max_steps=1", "training.save_every=1", "training.checkpoint_every=0"
    )
    stopped.run()
    again = train_condition_task("run", *CONDITION, "training.max_steps=2")
    group = again.optimizer.param_groups[0]
    group["params"] = group["params"][::-1]
    with pytest.raises(ConfigError, match="optimizer of other parameters.*resume=false"):
        again.run()


def test_a_condition_encoder_with_attention_is_refused(train_condition_task):
    with pytest.raises(InstantiationException, match="n_cond_layers=0"):
        train_condition_task("attention", *CONDITION, "task.policy.model.n_cond_layers=1")


def test_a_frozen_encoder_needs_images(train_condition_task):
    with pytest.raises(InstantiationException, match="policies on images"):
        train_condition_task("frozen", "objective=frozen_encoder")


def test_rollouts_do_not_score_another_objective(train_condition_task):
    workspace = train_condition_task("plain", *CONDITION)
    with pytest.raises(ConfigError, match="rollout.n_episodes"):
        TrainWorkspace(workspace.cfg, rollout=lambda policy, step: 0.0)


def test_no_number_is_predicted_more_finely_than_asked(train_condition_task):
    """However sure the head is, a likelihood is at most that of the smallest scale in each of the two numbers."""
    obs = {"obs": torch.full((4, 1, 16), 0.3)}
    for min_scale in (0.01, 0.5):
        objective = train_condition_task("fine", *CONDITION, f"objective.min_scale={min_scale}").objective.eval()
        with torch.no_grad():
            objective.head.weight.zero_()
            objective.head.bias.zero_().view(4, 5)[:, 3:] = -20.0
            likelihood = objective.log_likelihood(obs, torch.zeros(4, 2)).exp()
        torch.testing.assert_close(likelihood, torch.full((4,), (2 * min_scale) ** -2.0))
    with pytest.raises(InstantiationException, match="has to be positive"):
        train_condition_task("fine", *CONDITION, "objective.min_scale=0")


def test_the_mixture_is_a_density(train_condition_task):
    """Summed over a grid of actions, the likelihood of a token's mixture is 1."""
    objective = train_condition_task("density", *CONDITION).objective.eval()
    assert isinstance(objective, ConditionObjective)
    torch.manual_seed(0)
    grid = torch.linspace(-30, 30, 301)
    action = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        objective.head.weight.normal_(std=0.3)
        likelihood = objective.log_likelihood({"obs": torch.full((len(action), 1, 16), 0.3)}, action).exp()
    assert likelihood.sum().item() * 0.2**2 == pytest.approx(1.0, abs=0.05)
