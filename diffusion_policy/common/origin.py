"""Whose modules are imported: this project shares its package name, and some modules' names, with the original project.

`diffusion_policy` is a namespace package in both, so one environment can hold both, and all modules that only one of
them has can be imported. Of the others, the first on sys.path wins.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from diffusion_policy.common.config import ConfigError

OWN = Path(__file__).resolve().parents[1]  # this project's diffusion_policy/


def own_file(module: str) -> Path | None:
    """This project's file of a module, None if it has none of this name."""
    package, *names = module.split(".")
    path = OWN.joinpath(*names).with_suffix(".py")
    return path if package == OWN.name and names and path.is_file() else None


def check_own(module: str) -> None:
    """Raise `ConfigError` if `module`, or another one that is imported already, is of another project of this name.

    Names outside of this project's package pass.
    """
    if module.split(".")[0] != OWN.name:
        return
    spec = importlib.util.find_spec(module)
    files = {module: None if spec is None else spec.origin}
    files.update(
        {
            name: getattr(other, "__file__", None)
            for name, other in list(sys.modules.items())
            if name.startswith(f"{OWN.name}.")
        }
    )
    for name, file in files.items():
        own = own_file(name)
        if own is not None and file is not None and Path(file).resolve() != own:
            raise ConfigError(
                f"{name} is not this project's but {file}. Another project of the same name comes first on sys.path. "
                f"Put this one before it: PYTHONPATH={OWN.parent}, or sys.path.insert(0, "
                f"{str(OWN.parent)!r}) ahead of the first import of {OWN.name}"
            )
