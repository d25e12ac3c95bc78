"""cache=tuned follows a certificate that lies beside the policy, as in a folder from the Hugging Face Hub."""

from __future__ import annotations

import shutil

from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.setup.tuned import find_tuned
from tests.conftest import ROOT
from tests.experiments.composed_settings import composed


def test_a_certificate_beside_the_policy_is_found(tmp_path):
    for name in ("policy.safetensors", "config.yaml"):
        shutil.copy(ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100" / name, tmp_path / name)
    for stored in (ROOT / "assets" / "pusht_lowdim").glob("tuned*.json"):
        shutil.copy(stored, tmp_path / stored.name)
    overrides = [f"checkpoint={tmp_path}", f"assets_dir={tmp_path}/none", "device=cpu"]
    settings = check(composed("eval", *overrides), "eval", overrides)
    tuned, path = find_tuned(load_experiment(settings, needs_simulator=False))
    assert path == tmp_path / "tuned.json" and tuned.claim is not None
