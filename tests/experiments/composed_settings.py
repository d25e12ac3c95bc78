"""Command lines composed and checked as the commands do it."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_dir

from bac_workbench.settings import check
from diffusion_policy.common.config import register_resolvers
from tests.conftest import ROOT

TASKS = sorted(path.stem for path in (ROOT / "config" / "task").glob("*.yaml"))
HYDRA = (
    "eval",
    "benchmark",
    "tune",
    "check",
    "profile_blocks",
    "figures",
    "stability",
    "calibrate",
    "serve",
    "train",
    "make_demos",
)
HYDRA += ("collect", "convert_actions")


def composed(command: str, *overrides: str, task: str = "pusht_lowdim") -> Any:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose(command, [f"task={task}", *overrides])


def checked(command: str, *overrides: str, task: str = "pusht_lowdim") -> Any:
    cfg = composed(command, *overrides, task=task)
    check(cfg, command, [*overrides])
    return cfg


def nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value
