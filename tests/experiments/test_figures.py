"""bac figures: from a command line to pictures, and the numbers that they show."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from omegaconf import OmegaConf

from bac.profile_matrices import Profile
from bac_workbench.figures.files import check_folder, figure_settings, written
from bac_workbench.figures.numbers import changes, map_distance, relative_errors
from bac_workbench.figures.run import make_figures
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError, to_plain
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.dataset.stored_demos import write_replay_buffer
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer
from tests.dataset.test_pusht_image_dataset import random_arrays
from tests.dataset.test_pusht_image_dataset import write as write_images
from tests.original_checkpoints import image_config, image_payload, saved

pytestmark = pytest.mark.usefixtures("quick_pictures")
FEW = ["n_states=2", "budget=3", "task.environment.max_steps=24"]
ONE_PAGE = ["metrics=[cosine]", "caches=[uniform]"]
MAPS = arrays(np.float64, (5, 5), elements=st.floats(-1, 1, width=16))


# ---- numbers ----
@given(MAPS, MAPS)
def test_the_distance_of_two_maps_is_that_of_both_orders_and_none_of_one_map(one, other):
    assert map_distance(one, one) == (0.0, 1.0)
    there, back = map_distance(one, other), map_distance(other, one)
    assert there.difference == back.difference >= 0
    np.testing.assert_allclose(there.correlation, back.correlation)
    assert np.isnan(there.correlation) or -1 - 1e-9 <= there.correlation <= 1 + 1e-9


def test_maps_that_differ_by_a_constant_are_apart_and_alike():
    one = np.random.default_rng(0).random((6, 6))
    found = map_distance(one, one + 0.25)
    assert found.difference == pytest.approx(0.25) and found.correlation == pytest.approx(1.0)
    assert np.isnan(map_distance(np.zeros((3, 3)), one[:3, :3]).correlation)
    with pytest.raises(ValueError, match="same 2 or more steps"):
        map_distance(np.ones((1, 1)), np.ones((1, 1)))


def test_changes_are_those_of_successive_steps():
    steps = np.arange(4.0)
    matrix = np.abs(steps[:, None] - steps) * 10
    assert changes({"decoder.layers.0.sa": matrix})["decoder.layers.0.sa"].tolist() == [10, 10, 10]


def test_errors_of_a_block_without_output_are_no_share():
    sizes = np.array([[2.0, 0.0], [4.0, 0.0]])
    shares = relative_errors(np.array([[3.0, 1.0], [0.0, 1.0]]), sizes)
    assert shares[:, 0].tolist() == [1.0, 0.0] and np.isnan(shares[:, 1]).all()


# ---- the command ----
@pytest.fixture
def experiment(make_cfg, tmp_path):
    def make(*overrides, usual=(), task="pusht_lowdim"):
        changes = [f"task={task}", *FEW, f"output_dir={tmp_path}/figures", *usual, *overrides]
        cfg = make_cfg(*changes, script="figures")
        return load_experiment(check(cfg, "figures", changes).on_chosen_dataset(), needs_simulator=False)

    return make


def test_every_picture_is_written_in_both_formats_with_its_numbers(experiment, tmp_path):
    said = []
    folder = make_figures(experiment("mark=bac"), said.append)
    metrics = ["cosine", "l1", "mse"]
    assert {path.name for path in folder.iterdir()} == set(written(metrics))
    for path in folder.glob("*.p*"):
        assert path.read_bytes()[:5] in (b"\x89PNG\r", b"%PDF-")
    stored, numbers = json.loads((folder / "figures.json").read_text()), np.load(folder / "figures.npz")
    profile = Profile.load(tmp_path / "assets" / "pusht_lowdim" / "ddpm8")
    for block in profile.blocks:
        for metric in metrics:
            drawn = numbers[f"similarity|{metric}|{block}"]
            np.testing.assert_allclose(drawn, profile.matrices[metric][block], rtol=1e-6, atol=1e-7)
            assert np.array_equal(numbers[f"similarity_change|{metric}|{block}"], np.diagonal(drawn, 1))
            maps = [numbers[f"episode_{number}|{metric}|{block}"] for number in (0, 1)]
            for matrix in (drawn, *maps):  # of a step with itself
                np.testing.assert_allclose(np.diagonal(matrix), 1.0 if metric == "cosine" else 0.0, atol=1e-6)
            apart = stored["homogeneity"][metric][block]
            assert map_distance(*maps) == pytest.approx((apart["difference"], apart["correlation"]), 1e-3, 1e-6)
    assert [item["name"] for item in stored["episodes"]] == ["seed 30000", "seed 30001"]
    assert list(stored["caches"]) == ["uniform_s3", "blockwise_acs_s3", "bac_s3", "sacs_s3"]
    for method in ("uniform", "blockwise_acs", "bac", "sacs"):
        errors, updates = numbers[f"errors|{method}"], numbers[f"updates|{method}"]
        assert errors.shape == updates.shape == numbers["sizes"].shape and errors.any()
        assert not errors[0].any()  # every block updates at step 0
        assert stored["caches"][f"{method}_s3"]["block_updates"] == updates.sum()
    assert stored["settings"]["mark"] == "bac" and stored["provenance"]["commit"]
    assert all(any(f"{stem}." in line for line in said) for stem in {name.split(".")[0] for name in written(metrics)})


def test_other_figures_are_replaced_only_if_asked_for(experiment):
    folder = make_figures(experiment("metrics=[cosine,l2]", "caches=[uniform]"), str)
    with pytest.raises(ConfigError, match="holds another set of figures.*metrics.*overwrite=true"):
        make_figures(experiment(*ONE_PAGE), str)
    assert (folder / "similarity_l2.png").exists()
    make_figures(experiment(*ONE_PAGE, "overwrite=true"), str)
    assert {path.name for path in folder.iterdir()} == set(written(["cosine"]))
    check_folder(folder, figure_settings(experiment(*ONE_PAGE)), overwrite=False)  # the same figures again
    (folder / "figures.json").unlink()
    with pytest.raises(ConfigError, match="nothing says what it shows"):
        make_figures(experiment(*ONE_PAGE), str)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["metrics=[cosin]"], "did you mean cosine"),
        (["episodes=[0]"], "two different episodes"),
        (["episodes=[1,1]"], "two different episodes"),
        (["episodes=[0,1,2]"], "two different episodes"),
        (["caches=[full]"], "uniform"),
        (["mark=full"], "uniform"),
        (["budget=9"], "use 1 to 8, the sampler's number of steps"),
        (["sampler=checkpoint", "sampler.steps=null", "budget=101"], "use 1 to 100"),
        (["sampler=ancestral5", "sampler.steps=1", "budget=1"], "takes one step"),
        (["first_seed=4294967295"], "4,294,967,295"),
        (["profile.source=dataset"], "are of rollouts"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_measured(experiment, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        make_figures(experiment(*overrides), str)
    assert not (tmp_path / "figures").exists() and not (tmp_path / "assets").exists()


# ---- demonstrations ----
@pytest.fixture
def demonstrations(tmp_path):
    """Three short made-up Push-T demonstrations."""
    rng = np.random.default_rng(0)
    shapes = {"keypoint": (20, 9, 2), "state": (20, 5), "action": (20, 2)}
    episodes = [
        {name: rng.uniform(0, 512, shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(3)
    ]
    write_replay_buffer(tmp_path / "demos.zarr", episodes, {})
    return [
        f"task.dataset.zarr_path={tmp_path}/demos.zarr",
        "profile.source=dataset",
        "profile.n_episodes=null",
        *ONE_PAGE,
    ]


def test_two_demonstrations_are_compared_without_a_simulator(experiment, demonstrations, tmp_path):
    made = experiment("episodes=[2,0]", usual=demonstrations)
    with pytest.raises(ConfigError, match="demonstration 3 is not among the 3"):
        make_figures(experiment("episodes=[0,3]", usual=demonstrations), str)
    assert not (tmp_path / "assets").exists()  # nothing was measured in vain
    folder = make_figures(made, str)
    stored = json.loads((folder / "figures.json").read_text())
    assert [item["name"] for item in stored["episodes"]] == ["demonstration 2", "demonstration 0"]
    assert stored["settings"]["source"] == "dataset" and "first_seed" not in stored["settings"]
    assert stored["profile"]["source"].startswith("windows of the task's data set")
    assert all(apart["difference"] > 0 for apart in stored["homogeneity"]["cosine"].values())


@pytest.fixture
def image_checkpoint(tmp_path):
    """A random Push-T policy that sees images, in the original project's form."""
    obs = {"image": {"shape": [3, 96, 96], "type": "rgb"}, "agent_pos": {"shape": [2], "type": "low_dim"}}
    config = image_config("pusht_image", {"obs": obs, "action": {"shape": [2]}}, [84, 84])
    policy = build_policy({"policy": to_plain(OmegaConf.create(config))["policy"]}).requires_grad_(False)
    pixels = FieldNormalizer.fit(torch.tensor([[0.0, 0.0], [512.0, 512.0]]))
    policy.set_normalizer(LinearNormalizer({"action": pixels, "agent_pos": pixels, "image": FieldNormalizer.image()}))
    return saved(tmp_path / "latest.ckpt", image_payload(policy, config))


def test_a_policy_that_sees_images_is_drawn_from_its_data_set(experiment, image_checkpoint, tmp_path):
    write_images(tmp_path / "images.zarr", random_arrays())
    usual = [f"checkpoint={image_checkpoint}", f"task.dataset.zarr_path={tmp_path}/images.zarr", "sampler.steps=10"]
    recorded = ["profile.source=dataset", "profile.n_episodes=null", "metrics=[l1]"]
    folder = make_figures(experiment(usual=[*usual, *recorded], task="pusht_image"), str)
    stored = json.loads((folder / "figures.json").read_text())
    assert (folder / "error_surge.pdf").exists() and stored["episodes"][1] == {"name": "demonstration 1", "states": 2}
    assert all(item["relative_error"] > 0 for item in stored["caches"].values()) and len(stored["caches"]) == 4
