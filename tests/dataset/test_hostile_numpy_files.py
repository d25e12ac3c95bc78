"""NumPy files of which nothing is known: hostile headers, and packed arrays that claim more than they hold."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from diffusion_policy.dataset import limits
from diffusion_policy.dataset.numpy_files import read_npy, read_npz
from diffusion_policy.dataset.replay_buffer import DatasetError


# ---- NumPy files ----
def npy_bytes(header: str, body: bytes = bytes(64)) -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + body


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}\n",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -8)}\n",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (8,)}\n",
        "{'descr': ('<f8', (8,)), 'fortran_order': False, 'shape': (1,)}\n",
        "{'descr': (",
        "((((" * 500,
        "",
    ],
)
def test_hostile_headers_of_arrays_are_refused(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(npy_bytes(header))
    with pytest.raises(DatasetError, match="cannot read .*a.npy"):
        read_npy(tmp_path / "a.npy")


def test_packed_arrays_claim_what_they_can_hold(tmp_path, monkeypatch):
    arrays = {"a": np.zeros((100, 100)), "b": np.asfortranarray(np.arange(6).reshape(2, 3))}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    for name, values in read_npz(tmp_path / "a.npz").items():
        np.testing.assert_array_equal(values, arrays[name])
    monkeypatch.setattr(limits, "ALWAYS_ALLOWED", 0)
    monkeypatch.setattr(limits, "PLAUSIBLE_RATIO", 10)
    with pytest.raises(DatasetError, match="a.npz .*claims"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DatasetError, match="o.npz .*object, not plain numbers"):
        read_npz(tmp_path / "o.npz")
