"""The error of everything that reads data sets."""

from __future__ import annotations

from diffusion_policy.common.errors import UserError


class DatasetError(UserError, RuntimeError):
    """A data set that is missing, truncated or not of the expected form; the message says what to do."""
