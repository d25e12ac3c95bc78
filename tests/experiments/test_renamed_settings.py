"""Settings of earlier versions are refused with the name that they have now."""

from __future__ import annotations

import pytest

from bac_workbench.settings.launch import check_command_line
from bac_workbench.settings.names import SETTINGS, present_name
from diffusion_policy.common.config import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("objective=condition objective.finest=0.03", "this setting is called objective.min_scale now"),
        ("objective=condition ++objective.finest=0.03", "this setting is called objective.min_scale now"),
        ("objective=condition objective.also.obs=3", "this setting is called objective.auxiliary_targets.obs now"),
        ("objective=condition +objective.also.obs=3", "this setting is called objective.auxiliary_targets.obs now"),
        (
            "objective=frozen_encoder init_checkpoint=x objective.views=4",
            "this setting is called objective.n_crops now",
        ),
    ],
)
def test_a_setting_with_its_old_name_is_refused_with_the_new_one(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_command_line(["task=pusht_lowdim", *arguments.split()], "train")


def test_no_new_name_is_an_old_one():
    assert not SETTINGS.keys() & set(SETTINGS.values())
    assert present_name("objective.modes") is None and present_name("objective.finest_of_all") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("objective._target_=nowhere.Own", "objective._target_=nowhere.Own: there is no such class"),
        ("objective._target_=builtins.int", "does not keep the contract of an objective"),
        ("objective=condition rollout.n_episodes=2", "leave it at 0"),
        ("objective=frozen_encoder", "init_checkpoint=null: this objective goes on from a policy that has learned"),
    ],
)
def test_what_an_objective_rules_out(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_command_line(["task=pusht_lowdim", *arguments.split()], "train")
