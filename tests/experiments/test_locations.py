"""Where configuration, assets and policies are looked for."""

from __future__ import annotations

from pathlib import Path

from bac_workbench import locations
from tests.conftest import ROOT


def test_a_checkout_is_known_by_its_layout(tmp_path):
    assert locations.CHECKOUT == locations.SHIPPED == ROOT and locations.CONFIG == ROOT / "config"
    assert locations.checkout_of(tmp_path / "site-packages" / "bac_workbench") is None


def test_the_working_directory_comes_before_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("checkpoint/pusht_lowdim/ddpm100")
    assert locations.shipped(path) == ROOT / path
    path.mkdir(parents=True)
    assert locations.shipped(path) == path and locations.shipped("nowhere") == Path("nowhere")
    assert locations.roots("assets") == [Path("assets"), ROOT / "assets"]
    monkeypatch.chdir(ROOT)
    assert locations.roots("assets") == [Path("assets")]


def test_a_wheel_says_where_the_policies_are_that_it_leaves_out(monkeypatch):
    assert locations.only_in_a_checkout("checkpoint/block_pushing/ddpm100") == ""
    monkeypatch.setattr(locations, "CHECKOUT", None)
    assert "copy the folder checkpoint/block_pushing" in locations.only_in_a_checkout(
        "checkpoint/block_pushing/ddpm100"
    )
    assert locations.only_in_a_checkout("checkpoint/can_ph/ddpm100") == ""
    assert locations.only_in_a_checkout("results/mine") == ""
