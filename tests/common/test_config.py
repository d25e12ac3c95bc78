"""The arithmetic resolver that stands in for the original `eval`, and the choice of a device."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.common.config import ConfigError, arithmetic, choose_device, register_resolvers, to_plain


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2-1+0", 1),
        (" 8 - 1 ", 7),
        ("2*(3+4)//3", 4),
        ("7 % 4", 3),
        ("1/4", 0.25),
        ("-3 + +5", 2),
        ("1e-4", 1e-4),
        (5, 5),
        ("2 if True else 22", 2),
        ("2 if false else 20 + 2", 22),
        ("1 if 'lift' == 'lift' else 0", 1),
        ("not False", True),
        ("3 > 2 and 5", 5),
        ("0 or 7", 7),
        ("0 and 1/0", 0),
        ("1 or 1/0", 1),
        ("null", None),
        ("None", None),
        ("5 if 1 <= 2 else 1/0", 5),
    ],
)
def test_arithmetic_is_that_of_python(expression, expected):
    result = arithmetic(expression)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "open('x')",
        "(1).__class__",
        "[1, 2]",
        "{1: 2}",
        "'a' 'b' + 'c'",
        "lambda: 1",
        "x",
        "f'{1}'",
        "'a' * 10000000000",
        "9**9",
        "1 << 99",
        "1 < 2 < 3",
        "1/0",
        "'a' < 1",
        "1 +",
        "",
        "\0",
        "b'1'",
        "(" * 300 + ")" * 300,
        "-" * 5000 + "1",
    ],
)
def test_everything_else_is_refused(expression):
    with pytest.raises(ConfigError, match="eval"):
        arithmetic(expression)


def test_resolver_in_a_config_of_the_original_form():
    register_resolvers()
    cfg = OmegaConf.create(
        {
            "n": 2,
            "cond": True,
            "obs_dim": 20,
            "pad": "${eval:'${n}-1'}",
            "policy": {
                "obs_dim": 20,
                "input_dim": "${eval:'${n} if ${cond} else ${.obs_dim} + ${n}'}",
                "name": "n${n}",
            },
        }
    )
    assert to_plain(cfg) == {
        "n": 2,
        "cond": True,
        "obs_dim": 20,
        "pad": 1,
        "policy": {"obs_dim": 20, "input_dim": 2, "name": "n2"},
    }


def test_choose_device_returns_what_is_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("gpu0", "unknown device"),
        ("", "unknown device"),
        ("meta", "use auto, cpu or cuda"),
    ],
)
def test_choose_device_says_what_to_use_instead(name, advice):
    with pytest.raises(ConfigError, match=advice):
        choose_device(name)


def test_a_missing_gpu_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="use device=cpu"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="has 1 CUDA GPU"):
        choose_device("cuda:1")
