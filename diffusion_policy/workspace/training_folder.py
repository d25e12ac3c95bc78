"""The folder of a training: held by one process, never half written, and what to do if it cannot be written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import Lock, locked
from diffusion_policy.workspace.training_log import LOG_FILE, append_record
from diffusion_policy.workspace.training_state import STATE_FILE


class TrainingFolder:
    """Where the files of a training go.

    Args:
        path: made when it is first held.
        purpose: what is said to another process that wants to write there.

    Attributes:
        saved_step: step of the state in the folder, whose numbers are finite; None: none was saved or read yet.
    """

    def __init__(self, path: Path, purpose: str):
        self.path, self.purpose = path, purpose
        self.saved_step: int | None = None
        self._lock: Lock | None = None  # while it is held

    @property
    def state_file(self) -> Path:
        return self.path / STATE_FILE

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Raises LockedError if another process trains here, ConfigError if the folder cannot be written."""
        with locked(self.path, self.purpose) as self._lock:
            yield

    def check(self) -> None:
        """Raises ConfigError if the folder was removed or replaced since it is held."""
        if self._lock is not None:
            self._lock.check()

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Raises ConfigError, which says what to do, where `name` cannot be written."""
        self.check()
        try:
            yield
        except OSError as error:
            self.check()  # removed just now: that is why
            raise ConfigError(
                f"{name} cannot be written to {self.path} ({error}): make room or make the folder writable. "
                f"{self.last_state()}"
            ) from error

    def append_to_log(self, record: dict[str, Any]) -> None:
        with self.writing(LOG_FILE):
            append_record(self.path, record)

    def last_state(self) -> str:
        """Where a training can go on that ends here, in words."""
        if self.saved_step is None or not self.state_file.is_file():
            return "No state has been saved"
        return (
            f"The last state whose numbers are finite is {self.state_file}, of step {self.saved_step}; the command "
            "goes on from there"
        )
