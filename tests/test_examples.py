"""The examples run as their first lines say, stay short, and use the library and the policies alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.conftest import ROOT
from tests.original_checkpoints import lowdim_config, lowdim_payload, saved

EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: str, status: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == status, result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def original(tmp_path):
    """A checkpoint of the original project: a small policy with random weights."""
    policy = build_policy(lowdim_config())
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 3), "action": torch.rand(50, 2)}))
    return saved(tmp_path / "latest.ckpt", lowdim_payload(policy))


def test_accelerate_policy():
    output = run("accelerate_policy.py")
    assert "bac, S=10" in output and "runtime planned: 1 chunks" in output and "largest difference" in output


def test_original_checkpoint(original):
    output = run("original_checkpoint.py", str(original))
    assert "original format, step 1234" in output and "uniform, S=1 on ddpm10" in output


def test_original_checkpoint_without_a_file_says_how_it_is_called():
    assert "path/to/latest.ckpt" in run("original_checkpoint.py", status=1)


def test_own_denoiser():
    output = run("own_denoiser.py")
    assert "0.ffn" in output and "bac, S=5, k=3" in output and "torch.Size([4, 4, 3])" in output


def test_foreign_denoiser():
    output = run("foreign_denoiser.py")
    assert "2.ffn" in output and "bac, S=5, k=3" in output and "branches computed; actions moved by 0.0" in output


def test_serve_client():
    pytest.importorskip("openpi_client")
    serving = pytest.importorskip("tests.experiments.serving.serving_tools")
    with serving.running() as server:
        output = run("serve_client.py", "12", str(server.port))
        assert output.count("step ") == 12 and server.metric('bac_requests_total{outcome="answered"}') == 6


def test_examples_are_short_and_need_the_library_and_the_policies_alone():
    paths = sorted(EXAMPLES.glob("*.py"))
    assert len(paths) == 5
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 55, path
        assert set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)) <= {
            "bac",
            "concurrent",
            "diffusers",
            "diffusion_policy",
            "numpy",
            "openpi_client",
            "pathlib",
            "sys",
            "time",
            "torch",
        }
