"""MuJoCo log files (`*.mjl`), the format in which the human Kitchen demonstrations are published.

All numbers are little-endian:
- seven int32: nq, nv, nu, nmocap, nsensordata, nuserdata and the length of the model's name in bytes
- the model's name
- rows of float32, one per simulation step: time, qpos [nq], qvel [nv], ctrl [nu], mocap positions [3 nmocap] and
  quaternions [4 nmocap], sensordata [nsensordata], userdata [nuserdata]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.numbers import first_not_finite
from diffusion_policy.dataset.replay_buffer import DatasetError

HEADER = ("nq", "nv", "nu", "nmocap", "nsensordata", "nuserdata", "the length of the name")
HEADER_BYTES = 4 * len(HEADER)
LARGEST_SENSIBLE = 10_000  # far above any model; another format read as a header exceeds it or is negative
LARGEST_LOG = 1 << 29  # bytes; the published ones have 1 MB
WHAT_TO_DO = "get the data set again, or delete this file if it was published like this"


@dataclass(frozen=True)
class MjlLog:
    """What one log recorded, float32.

    Attributes:
        time: [K], s.
        qpos: [K, nq], joint positions.
        qvel: [K, nv], joint velocities.
        ctrl: [K, nu], actuator targets.
    """

    time: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray
    ctrl: np.ndarray


def read_mjl(path: str | Path, every: int = 40) -> MjlLog:
    """Reads the rows 0, `every`, 2 `every`, ... of a log. 40 steps of 2 ms are one control step of Kitchen.

    Raises:
        DatasetError: the file is missing, of another format, cut short, without a row, or holds numbers that are not
            finite.
    """
    path = Path(path)
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > LARGEST_LOG):
            raise DatasetError(
                f"{path} is not a log: no plain file, or larger than {LARGEST_LOG:,} bytes: {WHAT_TO_DO}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read the log {path} ({error}): {WHAT_TO_DO}") from error
    if len(content) < HEADER_BYTES:
        raise DatasetError(
            f"{path} has {len(content)} bytes, less than the {HEADER_BYTES} of a log's header: {WHAT_TO_DO}"
        )
    sizes = [int(size) for size in np.frombuffer(content, "<i4", count=len(HEADER))]
    nq, nv, nu, n_mocap, n_sensor, n_user, name_length = sizes
    if min(sizes) < 0 or max(sizes) > LARGEST_SENSIBLE or nq == 0:
        listed = ", ".join(f"{name} {size}" for name, size in zip(HEADER, sizes))
        raise DatasetError(f"{path} is not a MuJoCo log, its header would say {listed}: {WHAT_TO_DO}")
    width = 1 + nq + nv + nu + 7 * n_mocap + n_sensor + n_user
    body = len(content) - HEADER_BYTES - name_length
    if body <= 0 or body % (4 * width):
        raise DatasetError(
            f"{path} is cut short, {max(body, 0)} bytes are not one or more rows of {4 * width} bytes: {WHAT_TO_DO}"
        )
    rows = np.frombuffer(content, "<f4", offset=HEADER_BYTES + name_length).reshape(-1, width)[::every]
    time, qpos, qvel, ctrl = np.split(rows[:, : 1 + nq + nv + nu], np.cumsum([1, nq, nv]), axis=1)
    for name, values in (("time", time), ("qpos", qpos), ("qvel", qvel), ("ctrl", ctrl)):
        place = first_not_finite(values)
        if place is not None:
            raise DatasetError(
                f"{path} holds numbers that are not finite: {name}, of every {every}th row, is {place}: {WHAT_TO_DO}"
            )
    return MjlLog(*(values.astype(np.float32) for values in (time[:, 0], qpos, qvel, ctrl)))
