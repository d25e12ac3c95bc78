"""Training in stages: the condition encoder first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.dataset.stored_demos import write_replay_buffer
from diffusion_policy.workspace.condition_learner import ConditionLearner
from diffusion_policy.workspace.train_workspace import TrainWorkspace

CONFIG = str(Path(__file__).resolve().parents[2] / "config")


@pytest.fixture
def train(tmp_path):
    """(name, *overrides) -> a workspace on made-up Block Pushing demonstrations; the action is a bent function of the observation."""
    rng = np.random.default_rng(0)
    obs = rng.uniform(0.2, 0.4, (6, 60, 16)).astype(np.float32)
    action = 0.03 * np.sin(15 * obs[..., :2])
    write_replay_buffer(tmp_path / "demos.zarr", [{"obs": o, "action": a} for o, a in zip(obs, action)], {})
    register_resolvers()

    def make(name, *overrides):
        small = [
            "task=block_pushing",
            "device=cpu",
            f"output_dir={tmp_path / name}",
            "task.policy.model.n_emb=32",
            f"task.dataset.zarr_path={tmp_path / 'demos.zarr'}",
            "task.dataset.effector_noise=0",
            "task.dataset.symmetries=false",
            "training.precision=fp32",
            "task.dataset.windows.val_ratio=0.2",
            "training.log_every=10",
            "training.warmup_steps=5",
        ]
        with initialize_config_dir(CONFIG, version_base=None):
            return TrainWorkspace(compose("train", overrides=[*small, *overrides]))

    return make


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


def test_condition_tokens_learn_and_are_standardised(train):
    workspace = train(
        "condition", *CONDITION, "training.max_steps=150", "training.checkpoint_every=150", "training.save_every=0"
    )
    before = workspace.validate()
    workspace.run()
    assert workspace.validate() < before - 0.2
    token = tokens(load_policy(workspace.output_dir / "checkpoints" / "step-000150").policy, workspace)
    assert token.mean(0).abs().max() < 0.3
    torch.testing.assert_close(token.std(0), torch.ones(32), atol=0.25, rtol=0)


def test_a_policy_from_the_condition_objective_is_the_start_of_the_denoising(train):
    first = train(
        "condition",
        "objective=condition",
        "task.policy.model.n_layer=2",
        "training.batch_size=64",
        "training.validate_every=0",
        "training.max_steps=20",
        "training.checkpoint_every=20",
    )
    layers = {name: value.clone() for name, value in first.policy.state_dict().items() if ".layers." in name}
    first.run()
    start = first.output_dir / "checkpoints" / "step-000020"
    second = train(
        "denoising",
        "task.policy.model.n_layer=2",
        f"init_checkpoint={start}",
        "training.max_steps=2",
        "training.checkpoint_every=0",
    )
    for name, value in layers.items():
        torch.testing.assert_close(
            second.policy.state_dict()[name], value, atol=1e-4, rtol=1e-3
        )  # untouched, in half precision
    rows = torch.arange(8)
    obs = {"obs": first.val_set[rows]["obs"][:, :3]}
    before = second.policy.eval().encode_observation(obs)
    torch.testing.assert_close(before, load_policy(start).policy.encode_observation(obs))
    second.run()
    assert not torch.equal(second.policy.model.head.weight, load_policy(start).policy.model.head.weight)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_policy_with_other_layers_is_refused(train, layers):
    first = train(
        "first",
        "task.policy.model.n_layer=2",
        "training.max_steps=1",
        "training.batch_size=8",
        "training.checkpoint_every=1",
    )
    first.run()
    with pytest.raises(ConfigError, match="is another model"):
        train(
            "other",
            f"task.policy.model.n_layer={layers}",
            f"init_checkpoint={first.output_dir / 'checkpoints' / 'step-000001'}",
        )


def test_what_fits_of_another_tasks_policy_is_taken_over(train):
    other = train(
        "other",
        "task.policy.model.n_layer=2",
        "training.max_steps=1",
        "training.batch_size=8",
        "training.checkpoint_every=1",
        "task.horizon=8",
        "task.n_action_steps=4",
        "task.dataset.obs_eef_target=false",
    )
    other.run()
    path = other.output_dir / "checkpoints" / "step-000001"
    workspace = train("here", "task.policy.model.n_layer=2", f"transfer_from={path}")
    own, found, fresh = (
        policy.state_dict()
        for policy in (workspace.policy, load_policy(path).policy, train("fresh", "task.policy.model.n_layer=2").policy)
    )
    assert own["model.pos_emb"].shape != found["model.pos_emb"].shape
    for name, value in own.items():
        # Sizes that differ, masks and the normalizer are this task's.
        mine = name == "model.pos_emb" or "mask" in name or name.startswith("normalizer.")
        assert torch.equal(value, (fresh if mine else found)[name]), name
    assert not torch.equal(own["normalizer.params_dict.obs.scale"], found["normalizer.params_dict.obs.scale"])


def test_a_policy_of_another_width_has_nothing_to_take_over(train):
    other = train(
        "other",
        "task.policy.model.n_emb=16",
        "task.policy.model.n_layer=1",
        "training.max_steps=1",
        "training.batch_size=8",
        "training.checkpoint_every=1",
    )
    other.run()
    path = other.output_dir / "checkpoints" / "step-000001"
    with pytest.raises(ConfigError, match="no layer of it fits"):
        train("here", f"transfer_from={path}")
    with pytest.raises(ConfigError, match="set one of them"):
        train("here", f"transfer_from={path}", f"init_checkpoint={path}")


def test_other_vectors_of_the_demonstrations_are_foretold_with_the_action(train):
    settings = [*CONDITION, "training.max_steps=150", "training.checkpoint_every=150", "training.save_every=150"]
    workspace = train("also", *settings, "objective.also={obs: 3}")
    learner, batch = workspace.learner, workspace.train_set[torch.arange(64)]
    assert learner.head.out_features == 4 * (1 + 2 * (2 + 3))
    values = workspace.train_set.fields["obs"][:, :3]
    torch.testing.assert_close(learner.further_mean, values.mean(0))
    torch.testing.assert_close(learner.further_std, values.std(0))

    @torch.no_grad()
    def foretold(learner):  # numbers of the observation, scaled; of the likeliest mode
        out = learner.head(learner.scale(learner.tokens({"obs": batch["obs"][:, 2:3]}))).unflatten(-1, (4, -1))
        return out[torch.arange(64), out[..., 0].argmax(-1), 3:6]

    wanted = (batch["obs"][:, 2, :3] - learner.further_mean) / learner.further_std
    before = (foretold(learner.eval()) - wanted).abs().mean()
    workspace.run()
    assert (foretold(learner.eval()) - wanted).abs().mean() < 0.6 * before
    resumed = train("also", *settings, "objective.also={obs: 3}")
    resumed.load_state()
    torch.testing.assert_close(resumed.learner.further_std, learner.further_std)


@pytest.mark.parametrize("also", ["{object_pose: 3}", "{obs: 17}"])
def test_what_the_demonstrations_lack_cannot_be_foretold(train, also):
    with pytest.raises(ConfigError, match="objective.also asks for.*they have obs, action"):
        train("also", *CONDITION, f"objective.also={also}")


def test_an_interrupted_condition_training_resumes_to_the_same_weights(train):
    settings = [
        *CONDITION,
        "training.checkpoint_every=4",
        "training.lr_schedule=trapezoid",
        "training.decay_fraction=0.01",
    ]
    whole = train("whole", *settings, "training.max_steps=4")
    whole.run()
    part = train("part", *settings, "training.max_steps=2", "training.save_every=2")
    part.run()
    rest = train("part", *settings, "training.max_steps=4")
    rest.run()
    a, b = (tokens(load_policy(w.output_dir / "checkpoints" / "step-000004").policy, whole) for w in (whole, rest))
    torch.testing.assert_close(a, b, atol=2e-3, rtol=0)  # half precision
    assert (a - tokens(part.ema.averaged.trained_policy(), whole)).abs().max() > 0.05  # two steps matter


def test_an_optimizer_of_other_parameters_is_refused(train):
    stopped = train("run", *CONDITION, "training.max_steps=1", "training.save_every=1", "training.checkpoint_every=0")
    stopped.run()
    again = train("run", *CONDITION, "training.max_steps=2")
    group = again.optimizer.param_groups[0]
    group["params"] = group["params"][::-1]
    with pytest.raises(ConfigError, match="optimizer of other parameters.*resume=false"):
        again.run()


def test_a_condition_encoder_with_attention_is_refused(train):
    with pytest.raises(InstantiationException, match="n_cond_layers=0"):
        train("attention", *CONDITION, "task.policy.model.n_cond_layers=1")


def test_a_frozen_encoder_needs_images(train):
    with pytest.raises(InstantiationException, match="policies on images"):
        train("frozen", "objective=frozen_encoder")


def test_rollouts_do_not_score_another_objective(train):
    workspace = train("plain", *CONDITION)
    with pytest.raises(ConfigError, match="rollout.n_episodes"):
        TrainWorkspace(workspace.cfg, rollout=lambda policy, step: 0.0)


def test_no_number_is_foretold_more_finely_than_asked(train):
    """However sure the head is, a likelihood is at most that of the smallest scale in each of the two numbers."""
    obs = {"obs": torch.full((4, 1, 16), 0.3)}
    for finest in (0.01, 0.5):
        learner = train("fine", *CONDITION, f"objective.finest={finest}").learner.eval()
        with torch.no_grad():
            learner.head.weight.zero_()
            learner.head.bias.zero_().view(4, 5)[:, 3:] = -20.0
            likelihood = learner.log_likelihood(obs, torch.zeros(4, 2)).exp()
        torch.testing.assert_close(likelihood, torch.full((4,), (2 * finest) ** -2.0))
    with pytest.raises(InstantiationException, match="has to be positive"):
        train("fine", *CONDITION, "objective.finest=0")


def test_the_mixture_is_a_density(train):
    """Summed over a grid of actions, the likelihood of a token's mixture is 1."""
    learner = train("density", *CONDITION).learner.eval()
    assert isinstance(learner, ConditionLearner)
    torch.manual_seed(0)
    grid = torch.linspace(-30, 30, 301)
    action = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        learner.head.weight.normal_(std=0.3)
        likelihood = learner.log_likelihood({"obs": torch.full((len(action), 1, 16), 0.3)}, action).exp()
    assert likelihood.sum().item() * 0.2**2 == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("precision", "message"), [("tf32", "use fp32 or bf16 on a CPU"), ("fp8", "use bf16, tf32")])
def test_a_precision_that_is_not_there_is_refused(train, precision, message):
    with pytest.raises(ConfigError, match=message):
        train("refused", f"training.precision={precision}")


@pytest.mark.gpu
def test_training_on_a_gpu_with_and_without_a_recorded_step(train, tmp_path):
    """With a process that loads, whose pinned memory is allocated while the step is recorded; the second half is resumed."""

    def losses(name, *overrides):
        options = [
            "device=cuda",
            "training.batch_size=16",
            "training.log_every=1",
            "training.num_workers=1",
            "training.save_every=6",
        ]
        for steps in (6, 12):
            train(
                name,
                *options,
                f"training.max_steps={steps}",
                "training.lr_schedule=cosine",
                "training.learning_rate=1e-4",
                *overrides,
            ).run()
        return [json.loads(line)["train_loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]

    recorded = losses("recorded")
    assert len(recorded) == 12 and recorded == pytest.approx(losses("plain", "training.cuda_graph=false"), rel=1e-3)
