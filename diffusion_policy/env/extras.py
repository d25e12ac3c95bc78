"""Optional packages: one simulator per benchmark, none of them needed by the core install."""
from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A task needs a package of an extra that is not installed."""


def import_extra(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` naming the extra of this project that installs it.

    An import that fails inside an installed package is not hidden: its own error is chained.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"cannot import {module!r}, which the {extra!r} tasks need ({error}). "
            f"Install it with: pip install -e .[{extra}]"
        ) from error
