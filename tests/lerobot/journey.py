"""Where lerobot is installed: a recording by LeRobot, a schedule from it for LeRobot's DiT, and both timed by turns.

    pip install ./bac && python tests/lerobot/journey.py

The data set is recorded and read by `LeRobotDataset`; the policy's denoiser and its DDPM loop are LeRobot's own, of the
default size, with random weights. Its observation encoder needs weights from a network, so that the state alone is its
condition here. Prints one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.multi_task_dit.configuration_multi_task_dit import MultiTaskDiTConfig
from lerobot.policies.multi_task_dit.modeling_multi_task_dit import DiffusionObjective, DiffusionTransformer
from torch import Tensor

from bac import bua, cache
from bac.adapters import find_blocks
from bac.any_model import profile_model

STATE, ACTION, STEPS, FPS = 8, 4, 100, 10


def recorded(folder: Path) -> Tensor:
    """Windows of two states [N, 2 * STATE] of three short episodes, as LeRobot's reader gives them."""
    features = {
        name: {"dtype": "float32", "shape": (size,), "names": [f"{name}_{i}" for i in range(size)]}
        for name, size in (("observation.state", STATE), ("action", ACTION))
    }
    written = LeRobotDataset.create("local/arm", FPS, features, root=folder, use_videos=False)
    rng = np.random.default_rng(0)
    for _ in range(3):
        for state in rng.uniform(-1, 1, (8, STATE)).astype(np.float32):
            written.add_frame({"observation.state": state, "action": state[:ACTION], "task": "reach"})
        written.save_episode()
    written.finalize()
    data = LeRobotDataset("local/arm", root=folder, delta_timestamps={"observation.state": [-1 / FPS, 0.0]})
    return torch.stack([data[index]["observation.state"].flatten() for index in range(1, len(data), 6)])


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = MultiTaskDiTConfig(num_train_timesteps=STEPS, num_inference_steps=STEPS)
    settings = SimpleNamespace(**{**vars(config), "action_feature": SimpleNamespace(shape=(ACTION,))})
    model = DiffusionTransformer(settings, conditioning_dim=2 * STATE).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    objective = DiffusionObjective(config, ACTION, config.horizon)
    with tempfile.TemporaryDirectory() as scratch:
        conditions = recorded(Path(scratch) / "arm")

    @torch.no_grad()
    def sample(index: int) -> Tensor:
        torch.manual_seed(index)
        return objective.conditional_sample(model, 1, conditions[index : index + 1])

    blocks = find_blocks(model)
    matrices = profile_model(model, blocks, STEPS, sample, runs=2)
    schedule = bua.bac(matrices["cosine"], matrices["l1"], budget=10, top_k=3)
    times: dict[str, list[float]] = {"full": [], "cached": []}
    for _ in range(3):  # by turns
        times["full"].append(seconds(sample))
        with cache(model, schedule) as cached, cached.chunk():
            times["cached"].append(seconds(sample))
    full, faster = (statistics.median(values) for values in times.values())
    numbers = {"conditions": len(conditions), "updates": schedule.update_count, "of": schedule.updates.size}
    versions = {name: version(name) for name in ("lerobot", "torch", "bac-diffusion")}
    print(json.dumps({**versions, **numbers, "full_s": full, "cached_s": faster, "ratio": full / faster}))
    assert schedule.update_count < schedule.updates.size / 2 and faster < full


def seconds(sample) -> float:
    started = time.perf_counter()
    sample(0)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
