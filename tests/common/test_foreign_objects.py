"""Checkpoints with objects of other classes: what is harmless is left out, what could run code is refused."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import os
import pathlib
import pickle
import types
import uuid

import numpy as np
import pytest
import torch

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.policy_files import CONFIG_FILE, build_policy, save_policy
from diffusion_policy.common.restricted_unpickler import restricted_loads
from tests.original_checkpoints import lowdim_config, saved


def assert_same(loaded, policy) -> None:
    own = loaded.policy.state_dict()
    assert all(torch.equal(own[name], value) for name, value in policy.state_dict().items())


class Stage(enum.Enum):
    """Somebody's own class."""

    FIRST = 1


class Settings:
    def __init__(self):
        self.values = {"a": [1, 2]}


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


class Listed(list):
    pass


class Mapped(dict):
    pass


Pair = collections.namedtuple("Pair", "a b")

HARMLESS = {
    "paths": pathlib.Path("a/b"),
    "dates": [datetime.datetime(2024, 1, 2), datetime.timedelta(3), datetime.UTC],
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], 3),
    "decimal": decimal.Decimal("1.5"),
    "uuid": uuid.UUID(int=3),
    "namespace": argparse.Namespace(a=1),
    "simple": types.SimpleNamespace(a=1),
    "range": range(3),
    "slice": slice(1, 2),
    "complex": 1 + 2j,
    "bytearray": bytearray(b"abc"),
    "array of text": np.array(["a", "b"]),
    "structured": np.zeros(2, [("x", "f4")]),
    "dtype": np.dtype("f4"),
    "numpy time": np.datetime64("2024-01-02"),
    "text of numpy": np.str_("a"),
    "legacy state": np.random.get_state(),
    "generator": np.random.default_rng(0),
    "legacy generator": np.random.RandomState(0),
    "torch dtype": torch.float32,
    "size": torch.Size([2, 3]),
    "device": torch.device("cpu"),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "class": np.float64,
}
OWN = {
    "enum": Stage.FIRST,
    "object": Settings(),
    "slots": Slots(),
    "list": Listed([1]),
    "dict": Mapped(a=1),
    "named tuple": Pair(1, 2),
    "scheduler": torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1).state_dict(),
}


@pytest.mark.parametrize("module", ["pickle", "dill"])
@pytest.mark.parametrize("place", ["pickles", "optimizer", "top", "top key"])
def test_harmless_objects_that_are_not_needed_do_not_matter(tmp_path, policy, payload, place, module):
    writer = pytest.importorskip(module)
    harmless = {
        name: value for name, value in HARMLESS.items() if (name, module) != ("range", "dill")
    }  # dill evaluates its repr
    for name, value in harmless.items() if place == "pickles" else ():  # the other places find them by the same way
        assert load_with(tmp_path, payload, place, name, value, writer).notes == ()
    loaded = load_with(tmp_path, payload, place, "all", harmless, writer)
    assert loaded.notes == ()
    assert_same(loaded, policy)


def load_with(tmp_path, payload: dict, place: str, name: str, value, writer):
    states = payload["state_dicts"]
    changed = {
        "pickles": lambda: {**payload, "pickles": {**payload["pickles"], name: writer.dumps(value)}},
        "optimizer": lambda: {**payload, "state_dicts": {**states, "lr_scheduler": {name: [value]}}},
        "top": lambda: {**payload, name: value},
        "top key": lambda: {**payload, "more": {name: {"x": (value, value)}}},
    }[place]()
    return load_policy(saved(tmp_path / "x.ckpt", changed, writer))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("place", ["pickles", "optimizer", "top"])
def test_objects_of_own_classes_are_left_out_and_it_is_said(tmp_path, policy, payload, place, name):
    loaded = load_with(tmp_path, payload, place, "own", OWN[name], pickle)
    assert_same(loaded, policy)
    if name != "scheduler":
        assert len(loaded.notes) == 1 and type(OWN[name]).__name__ in loaded.notes[0]


def test_no_class_is_ever_made_or_looked_up(tmp_path, payload, monkeypatch):
    data = pickle.dumps([Stage.FIRST, Settings(), Pair(1, 2)])
    for name in ("Stage", "Settings", "Pair"):
        monkeypatch.delattr(f"{__name__}.{name}")
    assert [value.foreign.rpartition(".")[2] for value in restricted_loads(data)] == ["Stage", "Settings", "Pair"]


def test_an_object_where_weights_or_the_config_should_be_is_an_error(tmp_path, payload):
    states = payload["state_dicts"]
    broken = {**states["ema_model"], "model.pos_emb": Settings()}
    with pytest.raises(CheckpointError, match="are no tensors: 'model.pos_emb'"):
        load_policy(saved(tmp_path / "x.ckpt", {**payload, "state_dicts": {**states, "ema_model": broken}}))
    with pytest.raises(CheckpointError, match="no 'policy' section"):
        load_policy(saved(tmp_path / "x.ckpt", {**payload, "cfg": Settings()}))
    with pytest.raises(CheckpointError, match=r"it holds a \S*Settings instead of cfg and state_dicts"):
        load_policy(saved(tmp_path / "x.ckpt", Settings()))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("webbrowser", "open"),
        ("runpy", "run_path"),
        ("pty", "spawn"),
        ("importlib", "import_module"),
        ("ctypes", "CDLL"),
        ("socket", "socket"),
        ("shutil", "rmtree"),
        ("pathlib", "Path.unlink"),
        ("numpy.testing", "runstring"),
        ("numpy", "fromfile"),
        ("torch.hub", "load"),
        ("torch", "load"),
        ("torch.utils.data", "DataLoader"),
        ("collections", "namedtuple"),
        ("datetime", "sys"),
        ("dill._dill", "_create_function"),
        ("cloudpickle", "CloudPickler"),
        ("joblib", "Parallel"),
        ("hydra.utils", "instantiate"),
        ("mine", "run"),
        ("mine", "Thing.run"),
        ("mine", "_Private"),
        ("mine;x", "Thing"),
        ("", "Thing"),
        ("mine..x", "Thing"),
        ("os.", "Popen"),
        ("posix", "Popen"),
        ("__builtin__", "Thing"),
        ("torch.nn.modules.module", "load_state_dict"),
        ("torch.optim", "Thing.x"),
        ("pip._internal", "Main"),
    ],
)
@pytest.mark.parametrize("called", [False, True])
def test_names_that_could_run_code_are_refused_wherever_they_are(tmp_path, payload, module, name, called):
    data = f"c{module}\n{name}\n{'(tR' if called else ''}.".encode()
    payload["pickles"]["other"] = data
    with pytest.raises(CheckpointError, match="which could run code. Nothing was executed"):
        load_policy(saved(tmp_path / "x.ckpt", payload))


def test_dill_written_functions_are_refused(tmp_path, payload):
    dill = pytest.importorskip("dill")
    payload["pickles"]["schedule"] = dill.dumps(lambda step: os.getpid())
    with pytest.raises(CheckpointError, match="dill._dill._create_function|could run code"):
        load_policy(saved(tmp_path / "x.ckpt", payload))


def test_quantised_weights_and_zero_scales_are_named(tmp_path, policy, payload):
    state = dict(payload["state_dicts"]["ema_model"])
    state["model.head.weight"] = state["model.head.weight"].to(torch.int8)
    payload["state_dicts"]["ema_model"] = state
    with pytest.raises(CheckpointError, match="quantised weights are not read"):
        load_policy(saved(tmp_path / "x.ckpt", payload))
    state["model.head.weight"] = policy.state_dict()["model.head.weight"]
    state["normalizer.params_dict.action.scale"] = torch.zeros(2)
    with pytest.raises(CheckpointError, match="divides by zero in action"):
        load_policy(saved(tmp_path / "x.ckpt", payload))
    state["normalizer.params_dict.action.scale"] = torch.zeros(10**6)
    with pytest.raises(CheckpointError, match="too large for a normalizer"):
        load_policy(saved(tmp_path / "x.ckpt", payload))


def test_one_small_storage_cannot_stand_for_a_large_policy(tmp_path):
    """All matrices of a deep Transformer in the memory of one."""
    config = lowdim_config()
    config["policy"]["model"].update(n_layer=40, n_emb=64)
    policy = build_policy(config)
    shared = torch.zeros(256 * 64)
    state = {name: shared[: value.numel()].view(value.shape) for name, value in policy.state_dict().items()}
    path = saved(tmp_path / "x.ckpt", {"cfg": config, "state_dicts": {"ema_model": state}})
    assert path.stat().st_size < 400_000
    with pytest.raises(CheckpointError, match="numbers but the file only|normalizer"):
        load_policy(path)


def test_a_folder_tells_nothing_that_was_not_done(tmp_path, policy):
    save_policy(tmp_path, policy, lowdim_config(), {"weights": "ema", "step": "9" * 5000})
    loaded = load_policy(tmp_path)
    assert loaded.notes == () and loaded.step is None and (tmp_path / CONFIG_FILE).exists()
