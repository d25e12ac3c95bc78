"""What a result was made with: commit, versions, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bac_workbench.locations import CHECKOUT

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "diffusers",
    "numpy",
    "gymnasium",
    "pymunk",
    "shapely",
    "pybullet",
    "mujoco",
    "robosuite",
    "robomimic",
)


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Commit, versions, hardware and thread count, JSON-able."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit(),
        "python": sys.version.split()[0],
        "versions": versions,
        "hardware": hardware(device),
        "threads": threads,
    }


def commit() -> str:
    """Git commit of this checkout, with '+changes' if files differ from it; 'unknown' outside a checkout."""
    if CHECKOUT is None:
        return "unknown"
    try:
        top, head = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    except OSError:
        return "unknown"
    if top.returncode or head.returncode or Path(top.stdout.strip()).resolve() != CHECKOUT:
        return "unknown"  # unpacked inside a repository of something else
    changed = _git("status", "--porcelain", "--untracked-files=no").stdout.strip()
    return head.stdout.strip() + ("+changes" if changed else "")


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True)


def hardware(device: torch.device) -> str:
    """Processor, cores and, for a CUDA device, the GPU."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        name = platform.platform()
    threads = torch.get_num_threads()
    cores = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{torch.cuda.get_device_name(device)}; {name}, {cores}" if device.type == "cuda" else f"{name}, {cores}"
