"""What can go wrong with the native library; every message says what to do."""

from __future__ import annotations

from bac.errors import UserError


class NativeError(UserError, RuntimeError):
    """The native library cannot be used, or a call of it failed."""


class CompilerMissing(NativeError):
    """runtime=compiled was asked for on a CPU but nothing can compile it."""


class CacheError(NativeError, OSError):
    """The folder that keeps the library is not safe, or cannot be read or written."""


class DamagedLibrary(NativeError):
    """A stored library is not the one that was stored, or does not fit this version of the project."""
