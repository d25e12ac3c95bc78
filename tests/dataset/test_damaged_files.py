"""Files of which nothing is known: mutations of sound ones end as sound data or a DatasetError, in bounded memory."""

from __future__ import annotations

import random
import resource
import shutil
import warnings
from pathlib import Path

import pytest

pytest.importorskip("h5py")  # file_kinds writes HDF5, too

from file_kinds import KINDS

from diffusion_policy.dataset.replay_buffer import DatasetError

MORE_BYTES = 1 << 30
N_MUTATIONS = 25
VALUES = [
    b"",
    b"null",
    b"[]",
    b"-1",
    b"99999999999999999999",
    b'"|O"',
    b'"<f8"',
    b"true",
    b'"pickle"',
    b"[" * 2000,
    b"0",
]


def mutate(path: Path, rng: random.Random) -> None:
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    file = rng.choice(files)
    content = bytearray(file.read_bytes()) or bytearray(1)
    start = rng.randrange(len(content))
    how = rng.randrange(6)
    if how == 0:
        content[start] ^= 1 << rng.randrange(8)
    elif how == 1:
        del content[start:]
    elif how == 2:
        content[start : start + 4] = rng.choice([b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", rng.randbytes(4)])
    elif how == 3:
        content[start:start] = rng.randbytes(9)
    elif how == 4:
        del content[start : start + 9]
    else:
        content[start : start + rng.randrange(5)] = rng.choice(VALUES)
    file.write_bytes(content)


@pytest.mark.parametrize(("make", "load"), [kind[1:] for kind in KINDS], ids=[kind[0] for kind in KINDS])
def test_a_mutated_file_is_refused_or_read(tmp_path, make, load):
    (tmp_path / "sound").mkdir()
    sound = make(tmp_path / "sound")
    load(sound)
    rng, before = random.Random(0), resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MORE_BYTES, before[1]))
    try:
        for _ in range(N_MUTATIONS):
            damaged = tmp_path / "damaged" / sound.name
            shutil.rmtree(damaged.parent, ignore_errors=True)
            damaged.parent.mkdir()
            (shutil.copytree if sound.is_dir() else shutil.copy2)(sound, damaged)
            mutate(damaged, rng)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    load(damaged)
                except DatasetError as error:
                    assert str(damaged.parent) in str(error)  # the file is named
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
