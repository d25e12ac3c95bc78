"""Small human Kitchen demonstrations in the published formats."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

NQ, NV, NU = 30, 29, 9


def mjl_bytes(
    n_rows: int,
    seed: int = 0,
    nq: int = NQ,
    nv: int = NV,
    nu: int = NU,
    n_mocap: int = 1,
    n_sensor: int = 2,
    n_user: int = 3,
    name: bytes = b"kitchen",
) -> tuple[bytes, dict[str, np.ndarray]]:
    """A log, and what it recorded at each of its rows."""
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-1.0, 1.0, (n_rows, 1 + nq + nv + nu + 7 * n_mocap + n_sensor + n_user)).astype("<f4")
    rows[:, 0] = 0.002 * np.arange(n_rows)
    header = struct.pack("<7i", nq, nv, nu, n_mocap, n_sensor, n_user, len(name))
    recorded = {
        "time": rows[:, 0],
        "qpos": rows[:, 1 : 1 + nq],
        "qvel": rows[:, 1 + nq : 1 + nq + nv],
        "ctrl": rows[:, 1 + nq + nv : 1 + nq + nv + nu],
    }
    return header + name + rows.tobytes(), recorded


def write_log(path: Path, n_rows: int, seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    content, recorded = mjl_bytes(n_rows, seed, **sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return recorded


def write_arrays(folder: Path, lengths: tuple[int, ...], seed: int = 0) -> dict[str, np.ndarray]:
    """The five files of arrays; demonstration e has `lengths[e]` steps. What lies after its end is not a number."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    n, longest = len(lengths), max(lengths)
    exists = np.arange(longest)[:, None] < np.array(lengths)
    arrays = {
        "observations_seq": np.where(exists[..., None], rng.uniform(-1.0, 1.0, (longest, n, 60)), np.nan),
        "actions_seq": np.where(exists[..., None], rng.uniform(-1.0, 1.0, (longest, n, 9)), np.nan),
        "existence_mask": exists.astype(np.float64),
        "all_init_qpos": rng.uniform(-1.0, 1.0, (n, 30)),
        "all_init_qvel": np.zeros((n, 29)),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    return arrays
