"""Which checkpoint a command takes when none is named, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from bac_workbench.settings import check
from bac_workbench.setup.checkpoints import DOMAIN_SHIFT, find_checkpoint, notes
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.setup.task import misfits
from bac_workbench.setup.task_files import task_files
from diffusion_policy.common.checkpoint import LoadedPolicy
from diffusion_policy.common.config import CheckpointError, register_resolvers, to_plain
from diffusion_policy.common.policy_files import WEIGHTS_FILE, build_policy
from diffusion_policy.env_runner import task as task_module
from diffusion_policy.env_runner.robomimic import robomimic_environment
from tests.conftest import ROOT
from tests.original_checkpoints import image_config

ORIGINALS = "diffusion_policy_transformer/train_{}/checkpoints/{}"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty place to run commands in; its checkpoint/ folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "checkpoint"


def config(*overrides: str, script: str = "eval"):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose(script, [*overrides])


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def settings(*overrides: str, script: str = "eval"):
    return check(config(*overrides, script=script), script, [*overrides])


def found(*overrides: str) -> Path:
    chosen = settings(*overrides)
    return find_checkpoint(chosen.checkpoint, chosen.task)


def refusal(*overrides: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        found(*overrides)
    return str(caught.value)


def test_every_task_file_is_found_with_its_own_folder_of_originals():
    files = task_files()
    assert set(files) == {path.stem for path in (ROOT / "config" / "task").glob("*.yaml")}
    assert files["kitchen_scripted_demos"].original is None
    assert files["block_pushing"].original == "low_dim/block_pushing" and files["block_pushing_abs"].original is None
    for choice, file in files.items():
        if choice.endswith(("_ph", "_mh")):
            group = "low_dim" if "_lowdim_" in choice else "image"
            assert file.original == f"{group}/{choice.replace('_lowdim', '')}" and file.name == choice
    assert files["can_lowdim_mh"].url(2) == (
        "https://diffusion-policy.cs.columbia.edu/data/experiments/low_dim/can_mh/"
        "diffusion_policy_transformer/train_2/checkpoints"
    )


@pytest.mark.parametrize(
    "choice", ["pusht_lowdim", "pusht_image", "kitchen_scripted_demos", "block_pushing", "can_ph", "lift_lowdim_mh"]
)
def test_the_folder_of_a_task_is_where_its_config_looks(choice):
    assert Path(config(f"task={choice}").checkpoint) == task_files()[choice].shipped()


def test_a_policy_of_this_project_comes_first_then_the_only_original(folder):
    original = touch(folder / "can_ph" / ORIGINALS.format(1, "epoch=0650-test_mean_score=1.000.ckpt"))
    assert found("task=can_ph").absolute() == original
    shipped = touch(folder / "can_ph" / "ddpm100" / WEIGHTS_FILE)
    assert found("task=can_ph").absolute() == shipped.parent


def test_what_comes_with_the_project_is_found_from_any_folder(folder):
    assert found("task=pusht_lowdim") == ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100"
    assert (
        found("task=pusht_lowdim", "checkpoint=checkpoint/block_pushing/ddpm100")
        == ROOT / "checkpoint/block_pushing/ddpm100"
    )
    own = touch(folder / "pusht_lowdim" / "ddpm100" / WEIGHTS_FILE)
    assert found("task=pusht_lowdim").absolute() == own.parent  # what is in the working directory comes first


def test_a_named_checkpoint_is_taken_as_it_is(folder):
    touch(folder / "can_ph" / ORIGINALS.format(0, "latest.ckpt"))
    assert found("task=can_ph", "checkpoint=nowhere/mine") == Path("nowhere/mine")


def test_of_several_originals_one_has_to_be_chosen(folder):
    for train in (0, 2):
        touch(folder / "can_ph" / ORIGINALS.format(train, "epoch=0650-test_mean_score=1.000.ckpt"))
    message = refusal("task=can_ph")
    assert "has 2 original checkpoints" in message
    line = next(line for line in message.splitlines() if "train_2" in line).strip()
    argument = line.strip("'")  # what the shell makes of it
    assert found("task=can_ph", argument) == Path(
        "checkpoint", "can_ph", ORIGINALS.format(2, "epoch=0650-test_mean_score=1.000.ckpt")
    )


@pytest.mark.parametrize("script", ["eval", "profile_blocks", "benchmark"])
def test_a_missing_checkpoint_says_where_it_comes_from_and_how_to_get_it(folder, script):
    touch(folder / "pusht_lowdim" / "ddpm100" / WEIGHTS_FILE)
    touch(folder / "kitchen_scripted_demos" / "ddpm100" / WEIGHTS_FILE)
    touch(folder / "can_mh" / ORIGINALS.format(0, "latest.ckpt"))
    with pytest.raises(CheckpointError) as caught:
        load_experiment(settings("task=can_ph", "device=cpu", script=script))
    message = str(caught.value)
    assert "checkpoint/can_ph/ddpm100" in message
    assert "diffusion-policy.cs.columbia.edu/data/experiments/image/can_ph/diffusion_policy_transformer/" in message
    assert "\n    bac checkpoint download task=can_ph\n" in message and DOMAIN_SHIFT in message
    here = message.rpartition("already: ")[2].split(
        ", "
    )  # of the same simulation first, then those that come with the project
    assert here[:2] == ["task=can_mh", "task=can_scripted_demos"] and "task=pusht_lowdim" in here
    assert len(message.splitlines()) < 12


def test_a_missing_simulator_is_said_at_once_too(folder, monkeypatch):
    monkeypatch.setattr(task_module.importlib.util, "find_spec", lambda package: None)
    message = refusal("task=square_lowdim_ph")
    assert "task=square_lowdim_ph" in message and "pip install 'bac-workbench[robomimic]'" in message
    assert DOMAIN_SHIFT not in message


def test_where_nothing_is_published_training_is_the_way(folder):
    message = refusal("task=block_pushing_abs")
    assert "publishes none" in message and "bac train task=block_pushing_abs" in message
    assert "download_checkpoint" not in message


@pytest.mark.parametrize(
    ("task", "trained_on", "form", "has_note"),
    [
        ("can_ph", "can_image_abs", "original", True),
        ("can_ph", "can_image_abs", "folder", True),  # converted
        ("can_ph", "can_ph", "folder", False),
        ("can_lowdim_ph", "can_lowdim_abs", "original", False),
        ("pusht_image", "pusht_image", "original", False),
    ],
)
def test_results_of_original_image_policies_carry_a_note(task, trained_on, form, has_note):
    loaded = LoadedPolicy(
        torch.nn.Identity(), {"task": trained_on, "policy": {}}, "ema", "0" * 64, Path("x"), form, None
    )
    assert notes(settings(f"task={task}").task, loaded) == ([DOMAIN_SHIFT] if has_note else [])


def test_a_policy_that_sees_other_images_than_the_environment_shows():
    shapes = {name: list(shape) for name, shape in robomimic_environment("lift").obs_shapes.items()}
    shapes["agentview_image"] = [3, 96, 96]
    shapes["wrist_image"] = shapes.pop("robot0_eye_in_hand_image")
    obs = {name: {"shape": shape, "type": "rgb" if len(shape) == 3 else "low_dim"} for name, shape in shapes.items()}
    original = image_config("lift_image_abs", {"obs": obs, "action": {"shape": [7]}}, [76, 76])
    policy = build_policy({"policy": to_plain(OmegaConf.create(original))["policy"]})
    assert misfits(task_module.Task("lift", robomimic_environment("lift")), policy) == [
        "it needs agentview_image [3, 96, 96], the environment shows [3, 84, 84]",
        "it does not look at robot0_eye_in_hand_image, which the environment shows",
        "it needs wrist_image [3, 84, 84], which the environment does not show",
        "it has action_dim 7 instead of 10",
    ]
