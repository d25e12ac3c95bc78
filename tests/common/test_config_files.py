"""Configs of others: the same values as OmegaConf's, within limits."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from diffusion_policy.common.config import CheckpointError, register_resolvers, to_plain
from diffusion_policy.common.config_files import read_yaml, resolve
from tests.original_checkpoints import LOWDIM_CONFIG, image_config

CAMERA = {"shape": [3, 40, 40], "type": "rgb"}
TREE = {
    "a": {"x": 1, "y": "${.x}", "z": "${..b}", "w": "${a.x}-${b}"},
    "b": 3,
    "l": [5, 6.5],
    "none": None,
    "yes": True,
    "key": "x",
    "section": "${a}",
    "policy": {
        "whole": "${a}",
        "up": ["${...a.y}", "${b}"],
        "sum": "${eval:'${b}+${a.x}'}",
        "unquoted": "${eval:${b}-1}",
        "first": "${l[0]}",
        "second": "${l.1}",
        "nothing": "${none}",
        "text": "v=${none}${yes}${l.1}",
        "chosen": "${a.${key}}",
        "flag": "${yes}",
        "through": "${section.y}",
        "if": "${eval:'1 if ${yes} else 0'}",
        "plain": "no interpolation",
        "number": "5",
        "compared": "${eval:'2 if \\'${key}\\' == \\'x\\' else 3'}",
        "quotes": "${eval:\"'${key}' == 'y'\"}",
    },
}


@pytest.mark.parametrize(
    "tree", [LOWDIM_CONFIG, image_config("can", {"obs": {"i": CAMERA}, "action": {"shape": [2]}}, [36, 36]), TREE]
)
def test_interpolations_are_those_of_omegaconf(tree):
    register_resolvers()
    assert resolve(tree, "policy") == to_plain(OmegaConf.create(tree).policy)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"policy": "${nowhere}"}, "refers to 'nowhere', which is not there"),
        ({"policy": {"a": "${..b.c}"}}, "which is not there"),
        ({"policy": "${...x}"}, "above the config"),
        ({"policy": {"a": "???"}}, "policy.a has no value"),
        ({"policy": {"a": "${b}"}, "b": "???"}, "b has no value"),
        ({"policy": "${policy}"}, "refers to itself"),
        ({"policy": {"a": "x${b}"}, "b": {"c": 1}}, "puts a whole section into a text"),
        ({"policy": "${a"}, "cannot be read"),
        ({"policy": "${eval:'().__class__'}"}, "more than arithmetic"),
        ({"policy": "${l[7]}", "l": [1]}, "which is not there"),
        ({"policy": "${x}", "x": "y" * 200_000 + "${z}", "z": 1}, "more than 100000 characters"),
    ],
)
def test_what_cannot_be_resolved(tree, message):
    with pytest.raises(CheckpointError, match=message):
        resolve(tree, "policy")


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "\\${oc.env:HOME}", "${eval:'${oc.env:HOME}'}", "${oc.${x}:HOME}", "${now:%Y}"]
)
def test_other_resolvers_stay_text(text):
    assert resolve({"policy": {"a": text}, "x": "env"}, "policy") == {"a": text.replace("${", "{")}


def test_yaml_with_anchors_is_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {x: 1e-4, y: [1, 2]}\nb: *a\nc: {<<: *a, x: '1'}\nd: 2024-01-01\n")
    shared = {"x": 1e-4, "y": [1, 2]}
    assert read_yaml(path) == {"a": shared, "b": shared, "c": {"x": "1", "y": [1, 2]}, "d": "2024-01-01"}


def test_a_key_that_comes_twice_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(CheckpointError, match="not a readable YAML config"):
        read_yaml(path)
