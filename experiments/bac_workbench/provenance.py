"""What a result was made with: commit, versions, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bac_workbench.locations import CHECKOUT

if TYPE_CHECKING:
    import torch

#: packages that decide the numbers of every task
PACKAGES = ("torch", "diffusers", "numpy", "gymnasium")
#: what decides them in a checkout; checkpoints, profiles and schedules have hashes of their own
CODE = ("bac", "diffusion_policy", "experiments", "config", "pyproject.toml")


def environment(device: torch.device, threads: int, simulator: Iterable[str] = ()) -> dict[str, Any]:
    """Commit, versions, hardware and thread count, JSON-able.

    Args:
        simulator: modules that the task's simulator imports, whose packages' versions are named, too.
    """
    names = dict.fromkeys([*PACKAGES, *(name for module in simulator for name in packages_of(module))])
    versions = {}
    for name in names:
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


def packages_of(module: str) -> list[str]:
    """The installed packages that bring a module: cv2 -> opencv-python-headless, or opencv-python, or both."""
    return sorted(set(_packages().get(module, [])))


@lru_cache(maxsize=1)
def _packages() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def commit() -> str:
    """Git commit of this checkout; 'unknown' outside a checkout.

    With '+changes' if the code or configuration differ from it, also by files that are not in it. Other files, such as
    documents and results, decide nothing.
    """
    if CHECKOUT is None:
        return "unknown"
    try:
        top, head = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    except OSError:
        return "unknown"
    if top.returncode or head.returncode or Path(top.stdout.strip()).resolve() != CHECKOUT:
        return "unknown"  # unpacked inside a repository of something else
    changed = _git("status", "--porcelain", "--", *CODE).stdout.strip()
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
