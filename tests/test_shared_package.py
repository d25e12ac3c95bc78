"""An environment with this project and another one that is called diffusion_policy, too, as the original project is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100"
# The layout of the original project: no __init__.py at the top; modules from the third on are named as ours are.
ORIGINAL = {
    "workspace/base_workspace.py": "class BaseWorkspace:\n    theirs = True\n",
    "policy/base_lowdim_policy.py": "class BaseLowdimPolicy:\n    theirs = True\n",
    "policy/diffusion_transformer_lowdim_policy.py": "from diffusion_policy.policy.base_lowdim_policy "
    "import BaseLowdimPolicy\n"
    "from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion\n"
    "class DiffusionTransformerLowdimPolicy(BaseLowdimPolicy):\n    def __init__(self, **settings):\n        pass\n",
    "model/diffusion/transformer_for_diffusion.py": "class TransformerForDiffusion:\n    theirs = True\n",
    "model/common/normalizer.py": "class LinearNormalizer:\n    theirs = True\n",
    "env/pusht/__init__.py": "theirs = True\n",
}
THEIRS = """
from diffusion_policy.workspace.base_workspace import BaseWorkspace
from diffusion_policy.policy.base_lowdim_policy import BaseLowdimPolicy
assert BaseWorkspace.theirs and BaseLowdimPolicy.theirs
"""
THEIRS_OF_BOTH = """
from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy
from diffusion_policy.model.common.normalizer import LinearNormalizer
import diffusion_policy.env.pusht
assert DiffusionTransformerLowdimPolicy.theirs and LinearNormalizer.theirs and diffusion_policy.env.pusht.theirs
"""
OURS = "import bac\nfrom diffusion_policy.common.checkpoint import load_policy\n"
ACT = f"""
import torch
policy = load_policy({str(CHECKPOINT)!r}, num_inference_steps=2).policy
with bac.accelerate(policy) as fast:
    assert torch.isfinite(fast.predict_action({{"obs": torch.zeros(1, 2, 20)}})["action"]).all()
"""


@pytest.fixture
def original(tmp_path):
    for name, text in ORIGINAL.items():
        path = tmp_path / "original" / "diffusion_policy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "original"


def run(code: str, *path: Path, cwd: Path) -> subprocess.CompletedProcess:
    """Runs `code` with these folders at the head of sys.path, and without an editable installation of this project."""
    head = f"""
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.path[:] = {[str(folder) for folder in path]!r} + [entry for entry in sys.path if "__editable__" not in entry]
"""
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, timeout=120, cwd=cwd)


def test_the_original_project_first_keeps_all_its_modules_and_ours_can_be_imported(original, tmp_path):
    result = run(THEIRS + THEIRS_OF_BOTH + OURS, original, ROOT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_this_project_first_loads_and_acts_and_the_original_can_be_imported(original, tmp_path):
    result = run(THEIRS + OURS + ACT, ROOT, original, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("before, order", [("", "original first"), (THEIRS_OF_BOTH, "ours put first too late")])
def test_a_policy_is_never_built_from_the_other_projects_class(before, order, original, tmp_path):
    late = f"sys.path.insert(0, {str(ROOT)!r})\n" if before else ""
    result = run(before + late + OURS + f"load_policy({str(CHECKPOINT)!r})", original, ROOT, cwd=tmp_path)
    error = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and error.startswith("diffusion_policy.common.config.CheckpointError"), result.stderr
    assert "is not this project's but" in error and str(original) in error and f"PYTHONPATH={ROOT}" in error


def test_the_library_works_beside_a_package_that_hides_the_policies(tmp_path):
    (tmp_path / "fork" / "diffusion_policy").mkdir(parents=True)
    (tmp_path / "fork" / "diffusion_policy" / "__init__.py").write_text("")
    code = "import sys\nfrom bac import Schedule, accelerate\nfrom bac.profiling import profile_features\n"
    code += "assert not any(name.startswith(('diffusion_policy', 'bac_workbench')) for name in sys.modules)"
    result = run(code, tmp_path / "fork", ROOT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_importing_the_library_loads_nothing_heavy(tmp_path):
    code = "import sys\nimport bac\nassert not {'torch', 'numpy', 'diffusers'} & set(sys.modules)"
    result = run(code, ROOT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
