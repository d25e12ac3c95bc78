"""Damaged archives, folders and paths: they load rightly or are a CheckpointError."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.policy_files import CONFIG_FILE, WEIGHTS_FILE
from diffusion_policy.common.restricted_unpickler import TorchArchive
from tests.common.hostile import PICKLES, archive
from tests.common.loading import refusal
from tests.original_checkpoints import lowdim_payload, saved


# ---- tensors ----
def tensor_pickle(storage=("0", 3), offset=0, size=(3,), stride=(1,), names=("x",)) -> bytes:
    """A state dict whose tensors are all described so."""

    def number(value: int) -> bytes:
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    pid = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(storage[0]) + text("cpu") + number(storage[1]) + b"tQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + number(offset) + numbers(size) + numbers(stride) + b"\x89}tR"
    )
    return b"\x80\x02}(" + b"".join(text(name) + tensor for name in names) + b"u."


@pytest.mark.parametrize(
    "change",
    [
        {"stride": (2**63,)},
        {"stride": (2**200,)},
        {"offset": 2**63},
        {"size": (2**62,)},
        {"size": (0, 2**62, 2**62), "stride": (0, 0, 0)},
        {"size": (-1,)},
        {"size": (1,) * 65, "stride": (1,) * 65},
        {"storage": ("0", 2**62)},
        {"storage": ("0", -3)},
        {"storage": ("9", 3)},
        {"storage": ("../data.pkl", 3)},
        {"size": (100_000,), "stride": (0,)},
        {"offset": 3},
        {"size": (2, 2), "stride": (2, 1)},
    ],
)
def test_tensors_that_cannot_exist(tmp_path, change):
    path = archive(tmp_path / "x.ckpt", tensor_pickle(**change), {"data/0": bytes(12)})
    with pytest.raises(CheckpointError):
        with TorchArchive(path) as opened:
            opened.tensor(opened.payload["x"])


def test_one_storage_under_many_names_is_read_once(tmp_path):
    names = [f"t{index}" for index in range(500)]
    path = archive(
        tmp_path / "x.ckpt", tensor_pickle(("0", 10**6), 0, (10**6,), (1,), names), {"data/0": bytes(4 * 10**6)}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TorchArchive(path) as opened:
        tensors = [opened.tensor(stored) for stored in opened.payload.values()]
    assert len({tensor.data_ptr() for tensor in tensors}) == 1 and not tensors[0].any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_number_repeated_without_memory_is_a_tensor(tmp_path):
    path = saved(tmp_path / "x.ckpt", {"x": torch.ones(1).expand(3, 64)})
    with TorchArchive(path) as opened:
        assert torch.equal(opened.tensor(opened.payload["x"]), torch.ones(3, 64))


# ---- zip files ----
def test_records_that_overlap_or_repeat_or_are_encrypted_or_lie(tmp_path, policy):
    path = saved(tmp_path / "x.ckpt", lowdim_payload(policy))
    sound = path.read_bytes()
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as file:
        file.writestr([name for name in file.namelist() if name.endswith("data.pkl")][0], b"N.")
    assert "have one name" in refusal(path)

    directory = sound.rindex(b"PK\x01\x02")
    for offset, value in [
        (8, b"\x01\x00"),
        (10, b"\x08\x00"),
        (20, b"\xff\xff\xff\x7f"),
        (24, b"\xff\xff\xff\x7f"),
        (42, b"\xff\xff\xff\x7f"),
        (28, b"\xff\xff"),
    ]:
        for record in (directory, sound.index(b"PK\x01\x02")):
            damaged = bytearray(sound)
            damaged[record + offset : record + offset + len(value)] = value
            path.write_bytes(damaged)
            try:
                load_policy(path)  # the last record is not one that a policy needs
            except CheckpointError:
                pass
            else:
                assert record == directory
    end = sound.rindex(b"PK\x05\x06")
    for offset in range(4, 22, 2):
        damaged = bytearray(sound)
        damaged[end + offset : end + offset + 2] = b"\xfe\xff"
        path.write_bytes(damaged)
        try:
            load_policy(path)
        except CheckpointError:
            pass


# ---- this project's folders ----
def test_headers_of_safetensors_files_that_lie(folder, policy):
    sound = (folder / WEIGHTS_FILE).read_bytes()
    length = int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8 : 8 + length])
    name = "model.head.weight"

    def written(entry) -> None:
        data = json.dumps({**header, name: entry}).encode()
        (folder / WEIGHTS_FILE).write_bytes(len(data).to_bytes(8, "little") + data + sound[8 + length :])

    start, end = header[name]["data_offsets"]
    for change in (
        {"data_offsets": [start, end + 4]},
        {"data_offsets": [0, end - start]},
        {"data_offsets": [end, start]},
        {"shape": [2**62, 4]},
        {"shape": [2**63, 2]},
        {"shape": [-1]},
        {"dtype": "F99"},
        {"dtype": "I32"},
        {"data_offsets": [2**64, 2**64]},
        {"shape": "x"},
    ):
        written({**header[name], **change})
        refusal(folder)
    for length in (0, 2**63, 2**64 - 1, 100):
        (folder / WEIGHTS_FILE).write_bytes(length.to_bytes(8, "little") + sound[8:])
        assert "truncated" in refusal(folder)
    (folder / WEIGHTS_FILE).write_bytes(b"abc")
    assert "truncated" in refusal(folder)


def test_texts_that_are_no_text(folder):
    for data in (b"\xff\xfe\x00", b"a: \xff", b"a: 'x", b"\x00" * 100, b"? [1, 2]\n: 3", b"", b"# nothing"):
        (folder / CONFIG_FILE).write_bytes(data)
        assert "config" in refusal(folder)


# ---- paths ----
def test_paths_that_are_no_checkpoint(tmp_path, folder):
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert "neither a file nor a folder but a device, pipe or socket" in refusal(tmp_path / "pipe.ckpt")
    assert "neither a file nor a folder" in refusal("/dev/zero")
    for path in (
        "\0",
        "x" * 5_000,
        5,
        None,
        2.5,
        b"x",
        ["a"],
        "~no_such_user_at_all/x.ckpt",
        "",
        tmp_path / "no" / "x.ckpt",
    ):
        refusal(path)
    (folder / CONFIG_FILE).unlink()
    os.mkfifo(folder / CONFIG_FILE)
    assert "config.yaml is missing" in refusal(folder)
    (folder / CONFIG_FILE).unlink()
    (folder / CONFIG_FILE).mkdir()
    assert "config.yaml is missing" in refusal(folder)


def test_the_folder_of_another_library_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(save({"w": torch.ones(1)}))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert "policy of another library" in refusal(path)
    (tmp_path / "config.json").unlink()
    assert "does not say which weights" in refusal(tmp_path / "model.safetensors")


# ---- damage of all kinds ----
def test_damaged_files_load_rightly_or_are_a_checkpoint_error(tmp_path, policy):
    """Bytes, instructions and settings changed at random; longer runs of the same kind found nothing else."""
    chance = random.Random(0)
    path = saved(tmp_path / "x.ckpt", lowdim_payload(policy))
    sound = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(sound)) as file:
        records = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in records if name.endswith("data.pkl"))
    refused = 0
    for round_ in range(300):
        target = bytearray(sound if round_ % 3 == 0 else records[name])
        for _ in range(chance.choice([1, 2, 8])):
            at = chance.randrange(len(target))
            change = chance.randrange(4)
            if change == 0:
                target[at] ^= 1 << chance.randrange(8)
            elif change == 1:
                del target[at : at + chance.randrange(1, 20)]
            elif change == 2:
                start = chance.randrange(len(target))
                target[at:at] = target[start : start + chance.randrange(1, 60)]
            else:
                target[at : at + 4] = chance.choice(
                    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x85\x85\x85R", b"h\x01h\x02", b"}]()"]
                )
        if round_ % 3:
            with zipfile.ZipFile(path, "w") as file:
                for entry, data in {**records, name: bytes(target)}.items():
                    file.writestr(entry, data)
        else:
            path.write_bytes(target)
        try:
            loaded = load_policy(path).policy
            assert loaded.predict_action({"obs": torch.zeros(1, 2, 3)})["action"].shape == (1, 5, 2)
        except CheckpointError as error:
            refused += 1
            assert len(str(error)) < 1500
    assert refused > 200


def test_a_pickle_in_a_pickle_has_the_same_limits(tmp_path, policy):
    payload = lowdim_payload(policy)
    for data in (
        PICKLES["a key nested deeply"],
        PICKLES["a large memo index"],
        b"",
        b"\x80",
        pickle.dumps([1] * 9)[:-3],
    ):
        payload["pickles"]["other"] = data
        assert "pickles['other']" in refusal(saved(tmp_path / "x.ckpt", payload))
