"""Reading foreign pickles: what is allowed arrives as plain data, everything else is refused before it runs."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.common import restricted_unpickler
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.restricted_unpickler import ALLOWED, TorchArchive, plain_config, restricted_loads


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def stack_global(module: str, name: str) -> bytes:
    """Protocol 4: push a global by two strings, where the name may be dotted."""
    short = lambda text: b"\x8c" + bytes([len(text)]) + text.encode()
    return b"\x80\x04" + short(module) + short(name) + b"\x93."


# ---- refusal ----
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), f"{os.system.__module__}.system"),
        (eval, ("open('{}', 'w')",), "eval"),
        (exec, ("open('{}', 'w')",), "exec"),
        (open, ("{}", "w"), "io.open|_io.open"),
        (__import__, ("os",), "__import__"),
        (getattr, ((), "__class__"), "getattr"),
        (torch.load, ("{}",), "torch.serialization.load"),
    ],
)
def test_a_call_is_refused_by_name_and_not_made(tmp_path, protocol, function, arguments, name):
    mark = tmp_path / "executed"
    call = Call(function, *(a.format(mark) if isinstance(a, str) else a for a in arguments))
    with pytest.raises(CheckpointError, match=rf"refused: the file asks for \S*({name})"):
        restricted_loads(pickle.dumps({"cfg": [call]}, protocol))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("collections", "OrderedDict.fromkeys"),
        ("builtins", "dict.__class__"),
        ("os", "path.join"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("torch", "hub.load"),
        ("dill._dill", "_create_code"),
        ("functools", "partial"),
        ("dill._dill", "_load_type.__globals__"),
        ("dill._dill", "_import_module"),
        ("dill._dill", "_get_attr"),
        ("omegaconf.dictconfig", "DictConfig.__init__"),
        ("diffusion_policy.common.checkpoint", "load_policy"),
        ("operator", "attrgetter"),
        ("numpy", "load"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_names_outside_the_table_are_refused_also_dotted_ones(module, name):
    for data in (stack_global(module, name), f"c{module}\n{name}\n.".encode(), f"(i{module}\n{name}\n.".encode()):
        with pytest.raises(CheckpointError) as error:
            restricted_loads(data)
        assert f"{module}.{name}" in str(error.value) and "Nothing was executed" in str(error.value)


@pytest.mark.parametrize("name", ["CodeType", "FunctionType", "ModuleType", "eval", ""])
def test_dill_may_name_only_data_types(name):
    with pytest.raises(CheckpointError, match=rf"_load_type\('{name}'\)"):
        restricted_loads(f"cdill._dill\n_load_type\n(V{name}\ntR.".encode())


def test_a_named_type_cannot_be_used_to_compute():
    with pytest.raises(CheckpointError, match=r"calls str\(\.\.\.\)"):
        restricted_loads(b"cbuiltins\nstr\n(I1\ntR.")
    with pytest.raises(CheckpointError, match="codec 'rot13'"):
        restricted_loads(b"c_codecs\nencode\n(Vx\nVrot13\ntR.")


@pytest.mark.parametrize(("module", "name"), sorted(ALLOWED))
def test_no_allowed_name_can_be_altered_by_a_pickle(module, name):
    """BUILD on a global would change our own functions and classes for everything read later."""
    before = dict(getattr(ALLOWED[module, name], "__dict__", {}))
    for state in (b"}Vx\nI1\ns", b"(N}Vx\nI1\nst", b"(N}V__class__\nNst"):  # __dict__ entries, then slots
        with pytest.raises(CheckpointError):
            restricted_loads(f"c{module}\n{name}\n".encode() + state + b"b.")
    assert dict(getattr(ALLOWED[module, name], "__dict__", {})) == before


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x80", pickle.dumps([1, 2, 3])[:-4], b"(lp0\n" * 5, b"\x80\x02\x82\x01."]
)
def test_damaged_bytes_are_a_checkpoint_error(data):
    with pytest.raises(CheckpointError, match="latest.ckpt is damaged"):
        restricted_loads(data, "latest.ckpt")


# ---- what is read ----
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_data_arrives(protocol):
    value = {
        "a": [1, 2.5, None, True, "text", b"bytes\xff", b""],
        "s": {1, 2},
        "f": frozenset((3,)),
        "t": ((), (1,)),
        4: 10**30,
    }
    assert restricted_loads(pickle.dumps(value, protocol)) == value


def test_dict_subclasses_become_dicts_without_attributes_or_factories():
    ordered = collections.OrderedDict(a=1)
    ordered._metadata = {"x": 1}
    default = collections.defaultdict(dict, {"b": {}})
    first, second = restricted_loads(pickle.dumps([ordered, default], 2))
    assert dict(first) == {"a": 1} and not hasattr(first, "_metadata")
    assert dict(second) == {"b": {}}
    with pytest.raises(KeyError):
        second["missing"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_omegaconf_tree_becomes_plain_and_none_of_its_code_runs(protocol, monkeypatch):
    inner = {"c": [1.5, "x", None, {"d": True}], "e": "${a}", "f": "???", "g": None}
    tree = {"a": 1, "b": inner, "h": "${eval:'${a}+1'}", 3: "i"}
    data = pickle.dumps(OmegaConf.create(tree), protocol)
    for cls in ("DictConfig", "ListConfig"):
        monkeypatch.delattr(f"omegaconf.{cls}.__init__")
    monkeypatch.setattr("omegaconf.basecontainer.BaseContainer.__setstate__", None)
    assert plain_config(restricted_loads(data)) == tree


def test_a_config_with_objects_cycles_or_explosive_sharing_is_refused(monkeypatch):
    with pytest.raises(CheckpointError, match="holds a StoredTensor|holds a TypeName"):
        plain_config({"a": [ALLOWED["typing", "Any"]]})
    cyclic: list = []
    cyclic.append(cyclic)
    with pytest.raises(CheckpointError, match="damaged"):
        plain_config(cyclic)
    monkeypatch.setattr(restricted_unpickler, "_MAX_CONFIG_NODES", 1000)
    shared: list = [1]
    for _ in range(40):
        shared = [shared, shared]
    with pytest.raises(CheckpointError, match="more than 1000 entries"):
        plain_config(shared)
    with pytest.raises(CheckpointError, match="damaged"):
        plain_config(restricted_loads(b"\x80\x02comegaconf.dictconfig\nDictConfig\n)\x81."))  # never given a state


# ---- archives ----
def saved(path, payload, **kwargs):
    torch.save(payload, path, **kwargs)
    return path


def test_tensors_are_those_of_torch_load(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = {
        "plain": base,
        "view": base[1:3, ::2],
        "transposed": base.t(),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        **{str(dtype): torch.ones(2, 3).to(dtype) for dtype in dtypes},
    }
    path = saved(tmp_path / "x.ckpt", collections.OrderedDict(tensors))
    expected = torch.load(path, weights_only=True)
    with TorchArchive(path) as archive:
        for name, stored in archive.payload.items():
            value = archive.tensor(stored)
            assert value.dtype == expected[name].dtype and torch.equal(value, expected[name]), name
        assert archive.payload["view"].storage_size == 24  # views share their storage


def test_only_tensors_that_are_asked_for_are_read(tmp_path):
    path = saved(tmp_path / "x.ckpt", {"wanted": torch.ones(3), "optimizer": torch.zeros(1000)})
    data = bytearray(path.read_bytes())
    position = data.index(bytes(4000))
    data[position] = 1  # the checksum of the second record no longer holds
    path.write_bytes(data)
    with TorchArchive(path) as archive:
        assert torch.equal(archive.tensor(archive.payload["wanted"]), torch.ones(3))
        with pytest.raises(CheckpointError, match="missing or damaged"):
            archive.tensor(archive.payload["optimizer"])


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (4,), (1,)),
        (2, (2,), (1,)),
        (0, (2,), (5,)),
        (0, (10**12,), (0,)),
        (-1, (1,), (1,)),
        (0, (1,), (-1,)),
        (0, (1, 1), (1,)),
        (0, ("1",), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, offset, size, stride):
    class Storage(Call):
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return ("storage", torch.FloatStorage, "0", "cpu", 3) if isinstance(item, Storage) else None

    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(path, "w") as archive, archive.open("archive/data.pkl", "w") as file:
        Pickler(file, 2).dump(
            {"x": Call(torch._utils._rebuild_tensor_v2, Storage(None), offset, size, stride, False, {})}
        )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(12))
    with pytest.raises(CheckpointError, match="damaged"):
        with TorchArchive(path) as archive:
            archive.tensor(archive.payload["x"])


def test_archives_that_torch_save_does_not_write_are_refused(tmp_path):
    def written(name, entries, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as archive:
            for entry, data in entries.items():
                archive.writestr(entry, data)
        return tmp_path / name

    empty = pickle.dumps({})
    for path, message in [
        (written("other.zip", {"a.txt": "x"}), "not one of torch.save"),
        (written("two.zip", {"a/data.pkl": empty, "b/data.pkl": empty}), "not one of torch.save"),
        (written("script.pt", {"a/data.pkl": empty, "a/constants.pkl": empty}), "TorchScript"),
        (written("big.ckpt", {"a/data.pkl": empty, "a/byteorder": "big"}), "byte order"),
        (
            written("bomb.ckpt", {"a/data.pkl": pickle.dumps(bytes(10**6))}, zipfile.ZIP_DEFLATED),
            "not what torch.save writes",
        ),
    ]:
        with pytest.raises(CheckpointError, match=message):
            TorchArchive(path)


def test_unknown_outside_objects_are_refused():
    with pytest.raises(CheckpointError, match="unknown outside object 'module'"):
        restricted_loads(b"\x80\x02(X\x06\x00\x00\x00moduleK\x01K\x02K\x03K\x04tQ.")
