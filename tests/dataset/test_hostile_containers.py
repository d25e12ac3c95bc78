"""Container files that would keep the libraries which read them busy, or stumble: found by `python -m stress`."""

from __future__ import annotations

import struct
import zipfile

import numpy as np
import pytest
from file_kinds import write_zarr
from robomimic_data import write_demonstrations

from bac_workbench.downloads.sources import ArchiveError, unpack
from diffusion_policy.dataset.numpy_files import read_npy
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.robomimic_dataset import load_robomimic_lowdim
from diffusion_policy.dataset.sequence_dataset import Windows


@pytest.mark.parametrize("version, form", [(1, "<H"), (2, "<I")])
def test_the_length_of_an_npy_header_is_checked_before_it_is_read(tmp_path, version, form):
    path = tmp_path / "a.npy"
    longest = 2 ** (8 * struct.calcsize(form)) - 1
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, longest) + b" " * 100)
    with pytest.raises(DatasetError, match=f"header claims {longest:,} bytes"):
        read_npy(path)
    np.save(path, np.arange(6.0))
    assert read_npy(path).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_member_without_a_name_does_not_disturb(tmp_path):
    path = tmp_path / "a.zarr.zip"
    folder = write_zarr(tmp_path / "a.zarr")
    with zipfile.ZipFile(path, "w") as archive:
        for item in sorted(folder.rglob("*")):
            if item.is_file():
                archive.write(item, item.relative_to(folder))
        archive.writestr(zipfile.ZipInfo(""), b"")
    assert ReplayBuffer.from_zarr(path, ("action",)).n_episodes == 3


def test_an_archive_of_folders_without_end_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/" + "a/" * 3000 + "b", b"x")
    with pytest.raises(ArchiveError, match="a name of 6,006 characters .*nothing is unpacked"):
        unpack(tmp_path / "a.zip", "data", tmp_path / "out")


def test_a_heap_of_texts_that_never_ends_is_refused(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "low_dim_abs.hdf5"
    write_demonstrations(path, lengths=(8, 9))
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL\x01\0\0\0") + 16
    content[at : at + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="heap of texts"):
        load_robomimic_lowdim(path, "can", Windows(4))
