"""Small files in the form of robomimic's, of random numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion_policy.env.robomimic.definition import env_metadata, task_named

LENGTHS = (11, 7, 9, 8, 12, 6, 7, 8, 9, 10, 13)  # demo_10 comes after demo_9 and, in HDF5, before demo_2


def write_demonstrations(
    path: Path,
    task: str = "can",
    image: bool = False,
    absolute: bool = True,
    lengths: Sequence[int] = LENGTHS,
    env_args: dict | None = None,
    seed: int = 0,
) -> list[dict[str, np.ndarray]]:
    """Returns the arrays of every demonstration, by the names that they have in the file.

    As in the published files, `env_args` say control_delta whatever the actions are.
    """
    import h5py

    definition, rng = task_named(task), np.random.default_rng(seed)
    shapes = definition.image_shapes if image else definition.lowdim_shapes
    demos = [_demonstration(shapes, definition.n_arms, absolute, length, rng) for length in lengths]
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(
            {**env_metadata(definition, abs_action=False), "env_version": "1.4.1"} if env_args is None else env_args
        )
        for index, demo in enumerate(demos):
            for name, values in demo.items():
                data[f"demo_{index}/{name}"] = values
        file["mask/20_percent"] = np.array(["demo_0", "demo_3"], dtype="S")
    return demos


def _demonstration(
    shapes: dict[str, tuple[int, ...]], n_arms: int, absolute: bool, length: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    demo = {}
    for name, shape in shapes.items():
        pixels = len(shape) == 3
        demo[f"obs/{name}"] = (
            rng.integers(0, 256, (length, *shape[1:], 3), dtype=np.uint8)
            if pixels
            else rng.uniform(-1, 1, (length, *shape))
        )
    arms = []
    for arm in range(n_arms):
        demo[f"obs/robot{arm}_eef_pos"][:, 2] += 2.0  # above the table
        change = rng.uniform(-1, 1, (length, 6))
        if absolute:
            change[:, :3] = demo[f"obs/robot{arm}_eef_pos"] + 0.05 * change[:, :3]
            change[:, 3:] *= 1.5
        arms += [change, rng.choice([-1.0, 1.0], (length, 1))]
    demo["actions"] = np.concatenate(arms, axis=-1)
    demo["states"] = rng.normal(size=(length, 32))
    return demo
