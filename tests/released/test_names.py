"""Tasks, modules and blocks by the names of the released project."""

from __future__ import annotations

from pathlib import Path

import pytest

from bac_workbench.released.names import TASKS, file_of, module_of, modules_of, scored_name, task_at, task_of_checkpoint
from diffusion_policy.common.config import ConfigError
from tests.released.conftest import write_original

IN_TREE = "checkpoint/{}/diffusion_policy_transformer/train_1/checkpoints/latest.ckpt"


def test_every_task_of_the_release_is_one_of_this_project():
    choices = {name: file_of(name).choice for name in TASKS}
    assert len(set(choices.values())) == len(TASKS) == 12
    assert choices["pusht"] == "pusht_image" and choices["kitchen"] == "kitchen_lowdim_abs"
    assert choices["can_ph"] == "can_ph" and choices["block_pushing"] == "block_pushing"


@pytest.mark.parametrize(
    "folder, choice",
    [
        ("can_ph", "can_ph"),
        ("tool_hang_ph", "tool_hang_ph"),
        ("pusht", "pusht_image"),
        ("low_dim/pusht", "pusht_lowdim"),
        ("low_dim/can_ph", "can_lowdim_ph"),
        ("low_dim/kitchen", "kitchen_lowdim_abs"),
        ("kitchen", "kitchen_lowdim_abs"),
        ("low_dim/block_pushing", "block_pushing"),
        ("can_lowdim_mh", "can_lowdim_mh"),
    ],
)
def test_the_folder_of_a_checkpoint_tells_its_task(folder, choice):
    assert task_at(Path(IN_TREE.format(folder))).choice == choice
    assert task_at(Path("/somewhere", IN_TREE.format(folder))).choice == choice


def test_elsewhere_the_checkpoint_itself_tells_it(place):
    path = write_original(Path("mine", "a checkpoint=1.ckpt"), "blockpush_lowdim_seed")
    assert task_of_checkpoint(path, None).choice == "block_pushing"
    assert task_of_checkpoint(path, "pusht").choice == "pusht_image"
    with pytest.raises(ConfigError, match="did you mean kitchen"):
        task_of_checkpoint(path, "kitchn")


def test_blocks_are_called_by_the_dropout_that_ends_them():
    assert module_of("decoder.layers.3.sa") == "decoder.layers.3.dropout1"
    assert module_of("decoder.layers.3.ca") == "decoder.layers.3.dropout2"
    assert module_of("decoder.layers.3.ffn") == "decoder.layers.3.dropout3"
    assert modules_of("decoder.layers.0.sa") == ["decoder.layers.0.dropout1", "decoder.layers.0.self_attn"]
    assert scored_name("decoder.layers.3.ca") == "decoder.layers.3_mha_block"
    with pytest.raises(ConfigError, match="decoders only"):
        module_of("encoder.layers.0.sa")
