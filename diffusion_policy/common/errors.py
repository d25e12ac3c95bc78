"""The root of all errors that are about what the user asked for."""

from __future__ import annotations


class UserError(Exception):
    """What was asked for cannot be done. The message says what was wrong and what to do: no traceback is needed."""


class InputError(UserError, ValueError):
    """A value, an observation or a stored record that was given cannot be used."""
