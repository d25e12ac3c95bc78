"""Small sound files of every kind that is read, the same bytes for every call with one set of packages.

They are made by the helpers of the tests, so that what the tests call sound and what is mutated here are the same.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
for _folder in ("tests", "tests/dataset", "tests/common", "tests/bac"):
    sys.path.append(str(ROOT / _folder))  # they import each other by plain names, too

DATE = (1980, 1, 1, 0, 0, 0)
SETTINGS = {
    "task": "pusht_lowdim",
    "cache": "full",
    "schedule_digest": "x",
    "sampler": "ddpm8",
    "runtime": "planned",
    "seed": 0,
    "n_envs": 1,
    "episodes": 3,
    "commit": "c",
}


# ---- policies ----
@lru_cache(maxsize=1)
def lowdim() -> tuple[Any, dict[str, Any]]:
    """(policy, its config): two layers of width 16, 10 denoising steps."""
    import torch
    from original_checkpoints import lowdim_config

    from diffusion_policy.common.policy_files import build_policy
    from diffusion_policy.model.common.normalizer import LinearNormalizer

    torch.manual_seed(0)
    config = lowdim_config()
    policy = build_policy(config)
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 3), "action": torch.randn(50, 2)}))
    return policy.eval(), config


def original_checkpoint(folder: Path) -> Path:
    """A .ckpt as the original project writes it."""
    from original_checkpoints import lowdim_payload, saved

    return saved(folder / "latest.ckpt", lowdim_payload(lowdim()[0]))


def checkpoint_folder(folder: Path) -> Path:
    from diffusion_policy.common.policy_files import save_policy

    policy, config = lowdim()
    save_policy(folder / "policy", policy, config, {"weights": "ema", "step": "7"})
    return folder / "policy"


def image_checkpoint(folder: Path) -> Path:
    """The same for a policy with a camera, EMA weights only: 45 MB, of which the vision encoder has most."""
    import torch
    from omegaconf import OmegaConf
    from original_checkpoints import image_config, image_payload, saved

    from diffusion_policy.common.config import to_plain
    from diffusion_policy.common.policy_files import build_policy
    from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer

    camera = {"shape": [3, 40, 40], "type": "rgb"}
    shapes = {"obs": {"agentview_image": camera, "robot0_eef_pos": {"shape": [3]}}, "action": {"shape": [10]}}
    config = image_config("can_image", shapes, [36, 36])
    torch.manual_seed(0)
    policy = build_policy({"policy": to_plain(OmegaConf.create(config))["policy"]})
    vectors = {
        "robot0_eef_pos": FieldNormalizer.fit(torch.rand(20, 3)),
        "action": FieldNormalizer.fit(torch.rand(20, 10)),
    }
    policy.set_normalizer(LinearNormalizer({"agentview_image": FieldNormalizer.image(), **vectors}))
    payload = image_payload(policy.requires_grad_(False), config)
    del payload["state_dicts"]["model"]
    return saved(folder / "latest.ckpt", payload)


@lru_cache(maxsize=1)
def training() -> tuple[Any, Any, Any]:
    """(learner, its moving average, optimizer) after one step of training."""
    import copy

    import torch

    from diffusion_policy.model.diffusion.ema_model import EMAModel

    policy, _ = lowdim()
    learner = copy.deepcopy(policy)
    trained = [parameter for name, parameter in learner.named_parameters() if name.startswith("model.")]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 0.01)
    optimizer.step()
    return learner, EMAModel(copy.deepcopy(learner)), optimizer


def training_state(folder: Path) -> Path:
    from diffusion_policy.workspace.training_state import Progress, write_state

    write_state(folder / "latest.safetensors", *training(), Progress(3, 3, 1.5, {"step-000002": 0.5}, {}))
    return folder / "latest.safetensors"


# ---- schedules, profiles, evaluations ----
def blocks() -> tuple[str, ...]:
    from bac.blocks import execution_order

    return execution_order(f"decoder.layers.{layer}.{part}" for layer in range(2) for part in ("sa", "ca", "ffn"))


def schedule(folder: Path) -> Path:
    from bac.schedule import Schedule

    names = blocks()
    updates = np.random.default_rng(0).random((10, len(names))) < 0.4
    updates[0] = True
    Schedule(updates, names).save(folder / "schedule.json")
    return folder / "schedule.json"


def profile(folder: Path) -> Path:
    from bac.profile_matrices import Profile, ProfileInfo
    from bac.similarity import METRICS

    info = ProfileInfo("a" * 64, "ema", "ddpm6", 6, 2, (0, 1), "rollouts of the full policy from seeds 20000..20003")
    rng = np.random.default_rng(0)

    def matrix() -> np.ndarray:
        half = rng.random((6, 6)) * 0.5
        return half + half.T

    Profile(info, {metric: {name: matrix() for name in blocks()} for metric in METRICS}).save(folder / "profile")
    return folder / "profile"


def episode_rows() -> list[Any]:
    from diffusion_policy.env_runner.episodes import EpisodeResult

    return [
        EpisodeResult(index, 100000 + index, "test", 0.25 * index, 0.5, 7.0, index == 2, False, 24, 3, {"p1": 1.0})
        for index in range(3)
    ]


def evaluation(folder: Path) -> Path:
    """An output folder as an interrupted evaluation leaves it."""
    from diffusion_policy.common.files import write_json
    from diffusion_policy.env_runner.episodes import append_episode

    target = folder / "run"
    target.mkdir()
    write_json(target / "settings.json", {**SETTINGS, "earlier_n_envs": []})
    for row in episode_rows()[:2]:
        append_episode(target / "episodes.jsonl", row)
    return target


def evaluations(folder: Path) -> Path:
    """Results of two methods, to be compared."""
    from diffusion_policy.common.files import write_json

    adapter = {"_target_": "x", "max_steps": 24}
    for method, updates in (("full", 48), ("uniform_s2", 12)):
        provenance = {
            **SETTINGS,
            "checkpoint_hash": "a" * 64,
            "weights": "ema",
            "checkpoint_sampler": "ddpm8",
            "checkpoint_noise": "x",
            "sampler_steps": 8,
            "n_blocks": 6,
            "test_seeds_from": 100000,
            "precision": "fp32",
            "n_action_steps": 8,
            "n_latency_steps": 0,
            "max_steps": 24,
            "adapter": adapter,
            "commit": None,
            "hardware": "cpu",
        }
        rows = [
            {"seed": row.seed, "split": row.split, "score": row.score, "metrics": row.metrics} for row in episode_rows()
        ]
        write_json(
            folder / "runs" / method / "eval_results.json",
            {
                "task": "pusht_lowdim",
                "method": method,
                "sampler": "ddpm8",
                "mean_score": 0.25,
                "mean_score_interval_95": [0.1, 0.4],
                "n_episodes": 3,
                "metrics": {"p1": {"mean": 1.0, "interval_95": [1.0, 1.0]}},
                "episodes": rows,
                "flops": {"gflop_per_chunk": 0.1 * updates},
                "block_updates": {"per_chunk": updates, "full": 48},
                "provenance": provenance,
            },
        )
    return folder / "runs"


# ---- data sets ----
def replay_buffer(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """Two episodes in a zarr folder, as this project's own demonstrations are stored."""
    from diffusion_policy.dataset.stored_demos import write_replay_buffer

    rng = np.random.default_rng(0)
    episodes = [
        {name: rng.uniform(0, 1, (length, *shape)).astype(np.float32) for name, shape in shapes.items()}
        for length in (9, 12)
    ]
    write_replay_buffer(folder / "demos.zarr", episodes, {})
    return folder / "demos.zarr"


def archive(folder: Path) -> Path:
    """A .zip of a zarr data set, as data sets are published, and as zarr reads them."""
    tree = replay_buffer(folder / "tree", {"keypoint": (9, 2), "state": (5,), "action": (2,)})
    zipped(tree, folder / "pusht.zip", "pusht/demos.zarr")
    shutil.rmtree(folder / "tree")
    return folder / "pusht.zip"


def zipped(tree: Path, archive: Path, below: str = "") -> None:
    """All files of `tree`, in the folder `below` of the archive."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                name = f"{below}/{path.relative_to(tree).as_posix()}".lstrip("/")
                file.writestr(zipfile.ZipInfo(name, DATE), path.read_bytes())
