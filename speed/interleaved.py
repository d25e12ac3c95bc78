"""One timing run of several samplers: each once in every round, so that what else the machine does hits all alike."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bac.native import build, levels
from bac_workbench.provenance import commit, hardware
from diffusion_policy.policy.sampler_inputs import SamplerInputs

Sampler = Callable[[SamplerInputs, torch.Generator], Tensor]
PACKAGES = ("torch", "diffusers", "onnxruntime", "openvino")


def milliseconds(samplers: Mapping[str, Sampler], inputs: Any, rounds: int, warmup: int = 3) -> list[dict]:
    """Rows {'name', 'ms_p50', 'ms_p95', 'ms_best', 'n'} of chunks for the same noise in every sampler."""
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for index in range(-warmup, rounds):
        for name, sampler in samplers.items():
            noise = torch.Generator().manual_seed(index + warmup)
            began = time.perf_counter()
            sampler(inputs, noise)
            if index >= 0:
                times[name].append((time.perf_counter() - began) * 1e3)
    return [
        {
            "name": name,
            "ms_p50": round(statistics.median(values), 4),
            "ms_p95": round(sorted(values)[math.ceil(0.95 * len(values)) - 1], 4),
            "ms_best": round(min(values), 4),
            "n": len(values),
        }
        for name, values in times.items()
    ]


def machine() -> dict[str, Any]:
    """Processor, threads, the native library's level, and versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "hardware": hardware(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "level": levels.choose_level(build.library()).name,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": versions,
    }


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")
