"""Optional packages: one simulator per benchmark, none of them needed by the core install."""

from __future__ import annotations

import importlib
import re
import sys
from importlib import metadata
from types import ModuleType

from diffusion_policy.common.errors import UserError

_LIBRARY = re.compile(r"\b(lib[\w+-]+?)(?:-[\d.]+)?\.so[\w.]*(?=: cannot open shared object file)")
_DEBIAN = {
    "libGL": "libgl1",
    "libEGL": "libegl1",
    "libOSMesa": "libosmesa6",
    "libgthread": "libglib2.0-0",
    "libglib": "libglib2.0-0",
    "libSM": "libsm6",
    "libXext": "libxext6",
    "libXrender": "libxrender1",
    "libX11": "libx11-6",
    "libGLU": "libglu1-mesa",
}


class MissingExtraError(UserError, ImportError):
    """A task needs a package of an extra that is not installed."""


def import_extra(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` naming the extra of this project that installs it.

    An import that fails inside an installed package is not hidden: its own error is chained, and a system library that
    is missing is named as such.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        absent = absent or sys.modules.get(module, module) is None
        library = _LIBRARY.search(str(error))
        if absent:
            advice = f"Install it with: pip install 'bac-workbench[{extra}]'"
        elif library:
            package = _DEBIAN.get(library[1], f"the one that holds {library[0]}")
            advice = (
                f"It is installed; what is missing is the system library {library[0]} (Debian package: {package}). "
                "Where cv2 is meant, opencv-python-headless does without libGL"
            )
        else:
            pinned = _installed_as(module) or f"bac-workbench[{extra}]"
            advice = (
                "It is installed but cannot be used; install it anew with: "
                f"pip install --force-reinstall --no-deps '{pinned}'"
            )
        raise MissingExtraError(
            f"cannot import {module!r}, which the {extra!r} tasks need ({error}). {advice}"
        ) from error


def _installed_as(module: str) -> str | None:
    """The installed distribution that holds `module`, with its version, as pip takes it."""
    names = metadata.packages_distributions().get(module.partition(".")[0])
    return f"{names[0]}=={metadata.version(names[0])}" if names else None
