"""The jobs: what is started, what their results are, and with what a second process is refused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stress import samples
from stress.jobs.launch import Process
from stress.jobs.server import Server

VOLATILE = re.compile(
    r"second|time|latency|speed|levers|frequency|hz|started|commit|hardware|date|checkpoint$|per_s|rollout|earlier_n_envs",
    re.IGNORECASE,
)
TEMPORARY = re.compile(r"\.tmp$|\.part$|\.partial$|\.writing$|\.lock$|\.parts$|^\.writable$")


@dataclass(frozen=True)
class Job:
    """One kind of command.

    Attributes:
        name: for the table and for `kinds=`.
        script: in scripts/.
        arguments: of a run that writes below the given folder, with the inputs in another.
        result: what two runs must agree on, read from the folder.
        needs: modules without which it is not tried.
        done_says: what it answers, and fails, where its result is there already; empty: it succeeds then.
    """

    name: str
    script: str
    arguments: Callable[[Path, Path], list[str]]
    result: Callable[[Path], dict[str, Any]]
    needs: tuple[str, ...] = ()
    done_says: str = ""

    def is_done(self, process: Process) -> bool:
        """Whether a command failed only because what it makes is there."""
        return bool(self.done_says) and self.done_says in process.text()


# ---- inputs ----
def prepare(folder: Path) -> None:
    """Writes what all jobs read: a tiny policy of Push-T in both formats, and demonstrations."""
    import torch
    from hydra import compose, initialize_config_dir
    from original_checkpoints import saved

    from diffusion_policy.common.config import register_resolvers, to_plain
    from diffusion_policy.common.policy_files import build_policy, save_policy
    from diffusion_policy.dataset.stored_demos import write_replay_buffer
    from diffusion_policy.model.common.normalizer import LinearNormalizer

    register_resolvers()
    with initialize_config_dir(str(samples.ROOT / "config"), version_base="1.3"):
        policy_config = to_plain(compose("eval", ["task=pusht_lowdim"]).task)["policy"]
    policy_config["model"].update(n_layer=2, n_emb=32)
    policy_config["noise_scheduler"]["num_train_timesteps"] = policy_config["num_inference_steps"] = 8
    config = {"task": "pusht_lowdim", "policy": policy_config}
    torch.manual_seed(0)
    policy = build_policy(config)
    for parameter in policy.model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    corners = torch.tensor([[0.0], [512.0]])
    policy.set_normalizer(LinearNormalizer.fit({"obs": corners.expand(2, 20), "action": corners.expand(2, 2)}))
    save_policy(folder / "policy", policy, config, {"weights": "ema", "step": "1"})
    state = {name: value.detach() for name, value in policy.state_dict().items()}
    served = folder / "served"
    served.mkdir()
    saved(
        served / "latest.ckpt",
        {"cfg": {**config, "name": "x"}, "state_dicts": {"model": state, "ema_model": state}, "pickles": {}},
    )
    rng = np.random.default_rng(0)
    episodes = [
        {
            "keypoint": rng.uniform(0, 512, (20, 9, 2)).astype(np.float32),
            "state": rng.uniform(0, 512, (20, 5)).astype(np.float32),
            "action": rng.uniform(0, 512, (20, 2)).astype(np.float32),
        }
        for _ in range(3)
    ]
    write_replay_buffer(folder / "demos.zarr", episodes, {})
    write_replay_buffer(folder / "published.zarr", episodes * 100, {})  # large enough to be interrupted on its way
    _publish(folder / "published.zarr", served / "pusht.zip")


def _publish(tree: Path, archive: Path) -> None:
    """The data set as it is published: a zip archive, and its checksum beside it."""
    from bac_workbench.downloads.datasets import SOURCES

    source = SOURCES["pusht_lowdim"]
    samples.zipped(tree, archive, source.folder)
    archive.with_suffix(".sha256").write_text(source.digest(tree, source.read(tree)))


# ---- commands ----
TINY = ["task=pusht_lowdim", "device=cpu", "threads=1"]
PROFILE = ["profile.n_episodes=1", "profile.n_observations=2", "profile.noise_seeds=[0]"]


def _evaluation(folder: Path, inputs: Path) -> list[str]:
    return [
        *TINY,
        *PROFILE,
        f"checkpoint={inputs}/policy",
        f"assets_dir={folder}/assets",
        f"output_dir={folder}/out",
        "cache=bac",
        "cache.budget=3",
        "eval.n_test=4",
        "eval.n_envs=2",
        "eval.n_workers=1",
        "eval.n_videos=0",
        "benchmark.n_chunks=1",
        "benchmark.warmup=0",
        "task.environment.max_steps=16",
    ]


def _training(folder: Path, inputs: Path) -> list[str]:
    return [
        "task=pusht_lowdim",
        "device=cpu",
        f"output_dir={folder}/out",
        f"task.dataset.zarr_path={inputs}/demos.zarr",
        "task.policy.model.n_layer=1",
        "task.policy.model.n_emb=32",
        "task.policy.noise_scheduler.num_train_timesteps=8",
        "task.policy.num_inference_steps=8",
        "training.batch_size=8",
        "training.log_every=1",
        "training.validate_every=4",
        "training.save_every=2",
        "training.checkpoint_every=8",
        "training.max_steps=16",
        "training.num_threads=1",
        "training.warmup_steps=2",
    ]


def _profiling(folder: Path, inputs: Path) -> list[str]:
    return [
        *TINY,
        *PROFILE,
        f"checkpoint={inputs}/policy",
        f"assets_dir={folder}/assets",
        "schedules=[bac_s3,blockwise_acs_s3,unified_acs_s3]",
    ]


def _demonstrations(folder: Path, inputs: Path) -> list[str]:
    return ["task=block_pushing", f"output={folder}/demos.zarr", "n_episodes=3", "n_workers=1"]


def _benchmark(folder: Path, inputs: Path) -> list[str]:
    return [
        *TINY,
        *PROFILE,
        f"checkpoint={inputs}/policy",
        f"assets_dir={folder}/assets",
        f"output_dir={folder}/out",
        "methods=[full,bac_s3]",
        "runtimes=[reference,planned]",
        "n_chunks=3",
        "warmup=1",
    ]


def _conversion(folder: Path, inputs: Path) -> list[str]:
    return [f"checkpoint={inputs}/served/latest.ckpt", f"output={folder}/converted"]


def _checkpoint_download(folder: Path, inputs: Path) -> list[str]:
    return ["task=pusht_lowdim", f"checkpoint_dir={folder}/checkpoint", f"url={Server.address(inputs)}"]


def _data_download(folder: Path, inputs: Path) -> list[str]:
    return [
        "task=pusht_lowdim",
        f"data_dir={folder}/data",
        f"url={Server.address(inputs)}/pusht.zip",
        f"sha256={(inputs / 'served' / 'pusht.sha256').read_text()}",
    ]


# ---- results ----
def _plain(value: Any) -> Any:
    """JSON without what differs between any two runs."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not VOLATILE.search(key)}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _json(path: Path) -> Any:
    return _plain(json.loads(path.read_text()))


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        header = {
            key: _plain(json.loads(value)) if value.startswith("{") else value
            for key, value in (file.metadata() or {}).items()
        }
        return {
            "header": header,
            **{name: hashlib.sha256(file.get_tensor(name).tobytes()).hexdigest() for name in file.keys()},
        }


def _lines(path: Path) -> list[Any]:
    return sorted(
        (_plain(json.loads(line)) for line in path.read_text().splitlines()),
        key=lambda row: json.dumps(row, sort_keys=True),
    )


def _arrays(path: Path) -> dict[str, str]:
    with np.load(path) as stored:
        return {name: hashlib.sha256(stored[name].tobytes()).hexdigest() for name in stored.files}


READERS = {
    ".json": _json,
    ".jsonl": _lines,
    ".safetensors": _tensors,
    ".npz": _arrays,
    ".yaml": lambda path: path.read_text(),
    ".md": lambda path: path.read_text(),
}
# Of these only that they are there, and whole, is compared: pictures, and figures of timing.
ONLY_THERE = re.compile(r"benchmark(_results|_info)?\.(json|txt)$|\.png$|\.csv$")


def contents(folder: Path) -> dict[str, Any]:
    """Every file below `folder`: what it says where that does not depend on time, else that it is there."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            read = READERS.get(path.suffix)
            found[name] = (
                "there"
                if ONLY_THERE.search(name)
                else read(path)
                if read
                else hashlib.sha256(path.read_bytes()).hexdigest()
            )
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """One phrase each, empty if there are none."""
    listed = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    listed += [f"{name} is there" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(found.keys() & expected.keys()):
        if found[name] != expected[name]:
            where = ""
            if isinstance(found[name], dict) and isinstance(expected[name], dict):
                keys = [
                    key for key in {**found[name], **expected[name]} if found[name].get(key) != expected[name].get(key)
                ]
                where = f" in {', '.join(map(str, keys[:5]))}"
            listed.append(f"{name} differs{where}")
    return listed


JOBS = (
    Job("conversion", "convert_checkpoint.py", _conversion, contents, done_says="holds a checkpoint"),
    Job("training", "train.py", _training, contents, ("pymunk",)),
    Job("evaluation", "eval.py", _evaluation, contents, ("pymunk",)),
    Job("profiling", "profile_blocks.py", _profiling, contents, ("pymunk",)),
    Job("benchmark", "benchmark.py", _benchmark, contents, ("pymunk",)),
    Job("demonstrations", "make_demos.py", _demonstrations, contents, ("pybullet",)),
    Job("checkpoint download", "download_checkpoint.py", _checkpoint_download, contents),
    Job("data download", "download_data.py", _data_download, contents),
)
