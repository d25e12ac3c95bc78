"""Converting an original checkpoint: full precision is exact, half precision says how close it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE
from tests.common.loading import act, refusal
from tests.original_checkpoints import saved

ROOT = Path(__file__).resolve().parents[2]


def convert_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convert_checkpoint", ROOT / "scripts" / "convert_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = convert_script()


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_full_precision_conversion_is_exact(tmp_path, original, weights, capsys):
    source = load_policy(original, weights)
    written = script.convert(original, tmp_path / "out", weights, half=False)
    loaded = load_policy(tmp_path / "out", weights)
    assert loaded.hash == written.hash == source.hash and loaded.step == 1234 and loaded.config == source.config
    assert torch.equal(act(loaded.policy), act(source.policy))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert written.source == tmp_path / "out" / WEIGHTS_FILE
    assert f"{weights.upper()} weights of {original}" in capsys.readouterr().out
    other = "raw" if weights == "ema" else "ema"
    assert f"holds {weights} weights only" in refusal(tmp_path / "out", weights=other)


def test_half_precision_conversion_is_close_and_says_how_close(tmp_path, original, capsys):
    source, written = load_policy(original), script.convert(original, tmp_path / "out")
    assert written.hash != source.hash and "half precision changes a weight by at most" in capsys.readouterr().out
    assert (act(written.policy) - act(source.policy)).abs().max() < 5  # of a range of 500
    for name, value in source.policy.normalizer.state_dict().items():
        assert torch.equal(written.policy.normalizer.state_dict()[name], value)
    with safe_open(tmp_path / "out" / WEIGHTS_FILE, "pt") as file:
        assert file.metadata()["source"] == original.name and file.metadata()["source_hash"] == source.hash


def test_conversion_does_not_overwrite_unasked_and_keeps_other_files(tmp_path, original):
    script.convert(original, tmp_path / "out", half=False)
    (tmp_path / "out" / "README.md").write_text("how it was trained")
    with pytest.raises(ConfigError, match="overwrite=true"):
        script.convert(original, tmp_path / "out", "raw", half=False)
    assert load_policy(tmp_path / "out").weights == "ema"
    script.convert(original, tmp_path / "out", "raw", half=False, overwrite=True)
    assert load_policy(tmp_path / "out", "raw").weights == "raw" and (tmp_path / "out" / "README.md").exists()


def test_a_failed_conversion_leaves_nothing_behind(tmp_path, payload, original, monkeypatch):
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(script, "save_policy", lambda folder, *_: (folder.mkdir(), (folder / "half").touch(), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        script.convert(original, tmp_path / "out")
    monkeypatch.undo()
    payload["state_dicts"]["ema_model"]["model.decoder.layers.0.norm1.weight"] = torch.full((16,), 1e6)
    saved(original, payload)
    with pytest.raises(ConfigError, match="use half=false"):
        script.convert(original, tmp_path / "out")
    with pytest.raises(ConfigError, match="is a file"):
        script.convert(original, original)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "checkpoint=<path> is missing"),
        (["checkpoint=a"], "output=<path> is missing"),
        (["a.ckpt"], "form key=value"),
        (["checkpoint=a", "output=b", "wieghts=ema"], "unknown setting wieghts"),
        (["checkpoint=a", "output=b", "half=maybe"], "half=true or half=false"),
        (["checkpoint=a", "output=b", "half=["], "half=true or half=false"),
    ],
)
def test_settings_that_cannot_work(arguments, message):
    with pytest.raises(ConfigError, match=message):
        script.settings(arguments)


def test_settings_take_original_file_names_as_they_are():
    path = "x/epoch=0650-test_mean_score=1.000.ckpt"
    values = script.settings([f"checkpoint={path}", "output=out", "half=false"])
    assert values == {"checkpoint": path, "output": "out", "weights": "ema", "half": False, "overwrite": False}


def test_the_command_ends_with_one_screen_and_status_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["convert_checkpoint.py", f"checkpoint={tmp_path / 'no.ckpt'}", f"output={tmp_path / 'out'}"]
    )
    with pytest.raises(SystemExit) as end:
        script.main()
    assert end.value.code == 1 and "there is no checkpoint at" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
