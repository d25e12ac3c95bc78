"""Training the denoiser alone, on images that were encoded beforehand."""

from __future__ import annotations

import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.dataset.stored_demos import write_replay_buffer
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.conftest import ROOT
from tests.dataset.test_robomimic_scripted_dataset import SETTINGS, demonstration


@pytest.fixture
def train(tmp_path):
    """(name, *overrides) -> a workspace on made-up demonstrations of Can."""
    write_replay_buffer(tmp_path / "demos.zarr", [demonstration(length, length) for length in (14, 12, 16)], SETTINGS)
    register_resolvers()

    def make(name, *overrides):
        small = [
            "task=can_scripted_demos",
            "device=cpu",
            f"output_dir={tmp_path / name}",
            f"task.dataset.dataset_path={tmp_path / 'demos.zarr'}",
            "task.policy.n_layer=1",
            "task.policy.n_emb=32",
            "task.policy.crop_shape=[40,40]",
            "training.precision=fp32",
            "task.dataset.windows.val_ratio=0.3",
            "training.batch_size=4",
            "training.max_steps=2",
            "training.checkpoint_every=2",
            "training.log_every=1",
            "training.warmup_steps=0",
        ]
        with initialize_config_dir(str(ROOT / "config"), version_base=None):
            return TrainWorkspace(compose("train", overrides=[*small, *overrides]))

    return make


@pytest.fixture(scope="module")
def kept_start(tmp_path_factory):
    """Where the first `start` is kept for the tests that follow."""
    return tmp_path_factory.mktemp("start") / "policy"


@pytest.fixture
def start(train, kept_start):
    """A checkpoint whose encoder learned by predicting actions."""
    if not kept_start.exists():
        workspace = train("condition", "objective=condition", "training.batch_size=4", "training.max_steps=2")
        workspace.run()
        shutil.copytree(workspace.output_dir / "checkpoints" / "step-000002", kept_start)
    return kept_start


def test_only_the_denoiser_learns_and_from_the_features_of_the_policy(train, start):
    workspace = train(
        "frozen", "objective=frozen_encoder", "objective.n_crops=3", f"init_checkpoint={start}", "training.batch_size=4"
    )
    rows = torch.arange(len(workspace.val_set))
    images = workspace.val_set.dataset[rows]
    policy = workspace.policy.eval()
    torch.testing.assert_close(
        workspace.val_set[rows]["features"][:, :, 0], policy.encode_observation(images), atol=1e-5, rtol=0
    )
    assert workspace.train_set[[0, 1]]["features"].shape == (2, 2, 3, policy.obs_dim)
    assert torch.isfinite(torch.tensor(workspace.validate()))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    workspace.run()
    trained = load_policy(workspace.output_dir / "checkpoints" / "step-000002").policy.state_dict()
    for name, value in trained.items():
        if name.startswith(("obs_encoder.", "normalizer.")):
            torch.testing.assert_close(value, before[name], atol=1e-3, rtol=1e-3, msg=name)  # stored in half precision
    assert not torch.equal(workspace.policy.model.head.weight, before["model.head.weight"])


def test_the_loss_on_centre_crops_is_that_of_an_ordinary_training(train, start):
    frozen = train("frozen", "objective=frozen_encoder", "objective.n_crops=1", f"init_checkpoint={start}")
    ordinary = train("ordinary", f"init_checkpoint={start}", "objective=denoising")
    rows = torch.arange(4)
    features, images = frozen.train_set[rows], ordinary.train_set[rows]
    ordinary.policy.eval(), frozen.objective.eval()
    losses = [
        policy.denoising_loss(f, batch["action"], torch.Generator().manual_seed(0))
        for policy, f, batch in (
            (frozen.policy, features["features"][:, :, 0], features),
            (ordinary.policy, ordinary.policy.encode_observation(images), images),
        )
    ]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)


def test_finished_crops_are_not_encoded_again(train, start, monkeypatch):
    options = ["objective=frozen_encoder", "objective.n_crops=2", f"init_checkpoint={start}"]
    first = train("frozen", *options)
    encode = type(first.objective).encode
    encoded = []
    monkeypatch.setattr(
        type(first.objective), "encode", lambda self, *a, **k: encoded.append(a) or encode(self, *a, **k)
    )
    again = train("frozen", *options)
    assert not encoded
    torch.testing.assert_close(again.train_set.features, first.train_set.features)
    train("frozen", *options, "objective.n_crops=3")
    assert len(encoded) == 1
    train("frozen", *options, "seed=1")  # other crops
    assert len(encoded) == 3


def test_bad_use_says_what_to_do(train, start):
    with pytest.raises(ConfigError, match="init_checkpoint"):
        train("frozen", "objective=frozen_encoder")
    with pytest.raises(Exception, match="once at least"):
        train("frozen", "objective=frozen_encoder", "objective.n_crops=0", f"init_checkpoint={start}")


def test_rollouts_score_the_policy(train, start):
    """Its denoiser has learned, so it acts; what is scored is the policy, not what trained it."""
    scored = []

    def score(policy, step):
        obs = policy.random_observation(1, torch.Generator().manual_seed(0))
        scored.append((step, policy.predict_action(obs)["action"].shape))
        return 0.5

    workspace = train("frozen", "objective=frozen_encoder", "objective.n_crops=1", f"init_checkpoint={start}")
    workspace.rollout = score
    workspace.run()
    assert scored == [(2, (1, 8, 10))]
    assert load_policy(workspace.output_dir / "best").step == 2
