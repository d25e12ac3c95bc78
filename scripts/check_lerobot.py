"""Whether the `lerobot` package reads what `bac collect` writes: check_lerobot.py PYTHON [folder [episodes]]

PYTHON is an interpreter with lerobot[dataset], in an environment of its own, since every release of lerobot caps torch
below this project's. Collects Push-T episodes with this interpreter, simulates them anew from their seeds and actions,
and lets the other one load the data set and compare: every state, action and time stamp, and frames of the video.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

EVERY = 10  # frames of which one is compared
REPO = "local/collected"  # a name for lerobot, which looks for nothing there


def main(python: str, folder: str | None = None, episodes: str = "10") -> int:
    with tempfile.TemporaryDirectory() as scratch:
        dataset, expected = Path(folder or Path(scratch) / "pusht"), Path(scratch) / "expected.npz"
        command = [sys.executable, "-m", "bac_workbench.commands.main", "collect", "task=pusht_lowdim", "cache=bac"]
        subprocess.run([*command, f"n_episodes={episodes}", f"output_dir={dataset}"], check=True)
        np.savez(expected, **simulated(dataset))
        return subprocess.run([python, __file__, "--compare", str(dataset), str(expected)]).returncode


def simulated(dataset: Path) -> dict[str, np.ndarray]:
    """States, actions and times of all frames, and some pictures, from a simulation of the recorded actions."""
    from diffusion_policy.env_runner.pusht import make_keypoints_env, without_visibility
    from diffusion_policy.env_runner.recording import Record, record_folder

    rows = [json.loads(line) for line in (dataset / ".collection" / "episodes.jsonl").read_text().splitlines()]
    env = make_keypoints_env(legacy=True, render_size=256)
    states, actions, times, pictures = [], [], [], []
    for row in sorted(rows, key=lambda row: row["index"]):
        record = Record.load(record_folder(dataset / ".collection" / "records", row["seed"]))
        obs, _ = env.reset(seed=row["seed"])
        for frame, action in enumerate(record.action):
            if len(states) % EVERY == 0:
                pictures.append(env.render())
            states.append(without_visibility(obs))
            actions.append(action)
            times.append(frame / 10)
            obs = env.step(action)[0]
    numbers = {"states": states, "actions": actions, "times": times}
    return {**{name: np.array(v, dtype=np.float32) for name, v in numbers.items()}, "pictures": np.array(pictures)}


def compare(dataset: str, expected: str) -> int:
    """Runs where lerobot is installed."""
    from importlib.metadata import version

    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    wanted = np.load(expected)
    loaded = LeRobotDataset(REPO, root=dataset)
    batches = list(torch.utils.data.DataLoader(loaded, batch_size=64, shuffle=False))
    got = {key: torch.cat([batch[key] for batch in batches]).numpy() for key in batches[0] if key != "task"}
    frames = (got["observation.images.scene"][::EVERY].transpose(0, 2, 3, 1) * 255).round().astype(np.int64)
    error = np.abs(frames - wanted["pictures"])
    stretch = {"observation.state": [0.0, 0.1], "action": [0.0, 0.1]}  # s: two frames
    window = LeRobotDataset(REPO, root=dataset, delta_timestamps=stretch)[0]
    largest = {
        "states": float(np.abs(got["observation.state"] - wanted["states"]).max()),
        "actions": float(np.abs(got["action"] - wanted["actions"]).max()),
        "times": float(np.abs(got["timestamp"] - wanted["times"]).max()),
        "window": float(np.abs(window["action"].numpy() - wanted["actions"][:2]).max()),
    }
    versions = f"lerobot {version('lerobot')}, torch {torch.__version__}, decoder {loaded.reader._video_backend}"
    print(f"{versions}: {loaded.num_episodes} episodes, {len(loaded)} frames")
    print("largest difference to the simulation: " + ", ".join(f"{name} {value:g}" for name, value in largest.items()))
    print(
        f"pixels of {len(frames)} frames, levels of 255: mean difference {error.mean():.2f}, 99th percentile "
        f"{np.percentile(error, 99):.0f}, largest mean of a frame {error.mean(axis=(1, 2, 3)).max():.2f}"
    )
    # A frame too early or too late would show: the two pictures differ by more than the codec.
    moved = np.abs(np.diff(wanted["pictures"].astype(np.int64), axis=0)).mean()
    print(f"for comparison, pictures {EVERY} frames apart: {moved:.2f}")
    good = len(loaded) == len(wanted["states"]) and max(largest.values()) < 1e-4 and error.mean() < 2
    print("the data set reads as it was recorded" if good else "THE DATA SET READS OTHERWISE THAN IT WAS RECORDED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(compare(*sys.argv[2:]) if sys.argv[1] == "--compare" else main(*sys.argv[1:]))
