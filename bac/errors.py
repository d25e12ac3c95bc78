"""The root of all errors that are about what the user asked for."""

from __future__ import annotations


class UserError(Exception):
    """What was asked for cannot be done. The message says what was wrong and what to do: no traceback is needed."""


class Unavailable(UserError, ValueError):
    """The runtime, precision or option asked for is not to be had for this model on this machine."""


class NoDenoiser(UserError, TypeError):
    """The policy's model is none whose residual branches can be called one by one."""
