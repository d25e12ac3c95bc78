"""The snippets of docs/reference/python-api.md run in order, with a checkpoint and recorded observations alone."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bac import Schedule
from bac.schedule import Provenance
from diffusion_policy.common.checkpoint import load_policy

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """The names that the snippets have made, and the folder they ran in."""
    folder = tmp_path_factory.mktemp("robot")
    for name in ("checkpoint", "assets"):
        (folder / name).symlink_to(ROOT / name)
    policy = load_policy(ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100").policy
    np.save(
        folder / "recorded_observations.npy",
        policy.random_observation(2, torch.Generator().manual_seed(0))["obs"].numpy(),
    )
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, snippet in enumerate(SNIPPETS):
            exec(compile(snippet, f"docs/reference/python-api.md, snippet {number + 1}", "exec"), names)
    return names, folder


def test_the_guide_makes_a_schedule_for_this_policy_and_acts(after):
    names, folder = after
    schedule, loaded = Schedule.load(folder / "bac_s10.json"), names["loaded"]
    assert isinstance(schedule.provenance, Provenance) and schedule.provenance.checkpoint_hash == loaded.hash
    assert (schedule.provenance.method, schedule.provenance.budget, schedule.steps) == ("bac", 10, 100)
    assert schedule == names["schedule"] and 240 <= schedule.update_count < 1200
    assert names["action"].shape == (1, 8, 2) and torch.isfinite(names["action"]).all()
    assert names["fast"].report().chunks == 1


def test_the_guide_uses_the_library_alone():
    assert len(SNIPPETS) == 6
    imported = set(re.findall(r"^(?:from|import) (\w+)", "".join(SNIPPETS), re.MULTILINE))
    assert imported == {"bac", "diffusion_policy", "numpy", "torch"}


def test_every_name_of_the_guide_exists():
    names = re.findall(r"`((?:bac|diffusion_policy)\.[\w.]+)`", TEXT)
    assert len(names) > 10
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_uniform_caching_is_made_as_the_guide_says(after):
    (expression,) = re.findall(r"`bac\.uniform\.(uniform\([^`]+\))`", TEXT)
    from bac.uniform import uniform

    schedule = eval(expression, {**after[0], "uniform": uniform})
    assert schedule.update_count == 240
