"""Speed beside other engines, and how it grows: that both run, compare the same thing, and keep what is there."""

from __future__ import annotations

import json

import pytest
import torch

from docs.generate.speed_growth import encoders_text, growth_text, peers_text, precisions_text
from speed import arguments, encoders, growth, peers, precisions
from speed.interleaved import milliseconds
from tests.bac.tiny_policies import needs_compiler


def test_every_sampler_is_called_in_every_round_with_the_same_noise():
    calls = []

    def sampler(name):
        return lambda inputs, noise: calls.append((name, inputs, noise.initial_seed()))

    rows = milliseconds({"a": sampler("a"), "b": sampler("b")}, "inputs", rounds=2, warmup=1)
    assert calls == [(name, "inputs", seed) for seed in range(3) for name in "ab"]
    assert [(row["name"], row["n"]) for row in rows] == [("a", 2), ("b", 2)]
    assert all(0 <= row["ms_best"] <= row["ms_p50"] <= row["ms_p95"] for row in rows)


def test_the_runtimes_beside_another_engine(tmp_path, monkeypatch, capsys):
    def engine(model, example, threads, folder):
        return lambda *values: model(*values) * (1 + 1e-3)

    def missing(*_):
        raise ImportError("No module named 'engine'")

    monkeypatch.setattr(peers, "PEERS", {"another": engine, "none": missing})
    assert peers.main(["rounds=1", f"output={tmp_path}/peers.json"]) == 0
    run = json.loads((tmp_path / "peers.json").read_text())
    apart = {row["name"]: row["max_difference"] for row in run["rows"]}
    assert apart["plain, module by module"] == 0 and apart["planned"] < 1e-5 < 1e-4 < apart["another"]
    exact = {name: value for name, value in apart.items() if "bf16" not in name and "int8" not in name}
    assert all(value < 1e-5 for name, value in exact.items() if name.startswith("compiled"))
    assert "No module named 'engine'" in run["left_out"]["none"] and "make peers" in capsys.readouterr().out
    if "compiled" in apart:
        assert "| another |" in peers_text(run) and "| **planned** |" in peers_text(run)


@needs_compiler
def test_the_encoder_beside_another_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "PEERS", {"another": lambda module, *_: lambda *images: module(*images) * (1 + 1e-3)})
    assert encoders.main(["rounds=1", f"output={tmp_path}/encoders.json"]) == 0
    run = json.loads((tmp_path / "encoders.json").read_text())
    apart = {row["name"]: row["max_difference"] for row in run["rows"]}
    assert apart["compiled"] < 1e-5 < 1e-4 < apart["another"] and "| another |" in encoders_text(run)


@needs_compiler
def test_every_precision_is_timed_and_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(precisions, "BATCHES", (1, 2))
    assert precisions.main(["rounds=1", f"output={tmp_path}/precisions.json"]) == 0
    run = json.loads((tmp_path / "precisions.json").read_text())
    moved = {(row["sampler"], row["precision"]): row["moved"] for row in run["rows"]}
    assert all((value == 0) == (precision == "fp32") for (_, precision), value in moved.items())
    assert all(row["moved"] < row["another_noise"] for row in run["rows"])
    assert {row["batch"] for row in run["batches"]} == {1, 2} and run["weights"] > 6e6
    assert "| DDIM-10 | fp32 |" in precisions_text(run, [])


def test_growth_is_measured_along_every_axis(tmp_path, monkeypatch):
    pytest.importorskip("bac.native")
    monkeypatch.setattr(growth, "AXES", {"steps": (1, 4), "layers": (1, 2)})
    monkeypatch.setattr(growth, "Form", lambda **given: FORM(**{"width": 32, "layers": 1, **given}))
    assert growth.main(["rounds=2", f"output={tmp_path}/growth.json"]) == 0
    run = json.loads((tmp_path / "growth.json").read_text())
    assert [row["layers"] for row in run["axes"]["layers"]] == [1, 2] and run["axes"]["threads"][0]["threads"] == 1
    assert "| denoising steps |" in growth_text(run)


FORM = growth.Form


@pytest.mark.parametrize("text", ["rounds=0", "rounds", "steps=3", "threads=-1"])
def test_what_is_not_understood_is_refused(text):
    with pytest.raises(SystemExit, match="error: "):
        arguments.read([text], peers.USAGE, "peers.json", 3)


def test_a_stored_run_is_not_replaced_unasked(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SystemExit, match="overwrite=true"):
        arguments.read([f"output={tmp_path}/run.json"], peers.USAGE, "peers.json", 3)
    assert arguments.read([f"output={tmp_path}/run.json", "overwrite=true"], peers.USAGE, "x", 3)["rounds"] == 3
    assert torch.get_num_threads() >= 1
