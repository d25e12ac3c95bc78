"""Optional packages: one simulator per benchmark, none of them needed by the core install."""

from __future__ import annotations

import importlib
import re
import sys
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
            advice = f"Install it with: pip install -e .[{extra}]"
        elif library:
            package = _DEBIAN.get(library[1], f"the one that holds {library[0]}")
            advice = (
                f"It is installed; what is missing is the system library {library[0]} (Debian package: {package}). "
                "Where cv2 is meant, opencv-python-headless does without libGL"
            )
        else:
            advice = (
                f"It is installed but cannot be used; install it anew with: pip install --force-reinstall -e .[{extra}]"
            )
        raise MissingExtraError(
            f"cannot import {module!r}, which the {extra!r} tasks need ({error}). {advice}"
        ) from error
