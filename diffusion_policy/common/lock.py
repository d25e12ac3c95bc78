"""One writer per folder: a lock that other processes respect and that ends with its process.

The lock is the operating system's (`flock` on a hidden file), so that a killed process leaves none behind: what a lock
file says is only read to name the process that holds it. Over NFS Linux keeps such locks on the server, between
machines. Where there are none (some cluster file systems, Windows) a warning says so, and the caller goes on without.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffusion_policy.common.config import ConfigError

try:
    import fcntl
except ImportError:  # Windows; `_lock` warns
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
ADVICE = "Wait until it has ended, or choose another folder to write to"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_READ_AGAIN, _READ_PAUSE = 20, 0.01  # a lock file is empty for a moment, until its process has written its name


class LockedError(ConfigError):
    """Another process writes there; the message names it.

    Attributes:
        file: that the other process has locked; see `wait_for`.
    """

    def __init__(self, message: str, file: Path):
        super().__init__(message)
        self.file = file


@dataclass
class Lock:
    """A lock that is held. `check` says whether it still protects what it did."""

    file: Path
    descriptor: int | None  # None where the file system has no locks
    purpose: str
    count: int = 1

    def check(self) -> None:
        """Raises ConfigError if the folder was removed or replaced meanwhile: what is written now is lost or mixed."""
        if self.descriptor is not None and not _is_same(self.descriptor, self.file):
            raise ConfigError(
                f"{self.file.parent} was removed, or replaced by another, "
                f"while this process wrote to it ({self.purpose}): "
                "what it held is lost. Start again, and keep the folder until the end"
            )


_held: dict[Path, Lock] = {}
_guard = threading.RLock()


@contextlib.contextmanager
def locked(folder: str | Path, purpose: str, advice: str = ADVICE) -> Iterator[Lock]:
    """Holds the lock of `folder`, which is made if it is not there; within one process it may be taken again.

    Args:
        purpose: what this process does there, such as "evaluation of pusht_lowdim", for the process that is refused.
        advice: what that process is told to do.
    Raises:
        LockedError: at once, if another process holds it.
        ConfigError: the folder cannot be written.
    """
    folder = Path(folder)
    with _hold(folder / LOCK_FILE, folder, purpose, advice) as lock:
        yield lock


@contextlib.contextmanager
def locked_output(path: str | Path, purpose: str, advice: str = ADVICE) -> Iterator[Lock]:
    """The same for a file or folder that does not exist before it is complete: its lock lies beside it."""
    path = Path(path)
    with _hold(path.with_name(f".{path.name}{LOCK_FILE}"), path, purpose, advice) as lock:
        yield lock


@contextlib.contextmanager
def _hold(file: Path, what: Path, purpose: str, advice: str) -> Iterator[Lock]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        key = file.parent.resolve() / file.name
    except OSError as error:
        raise ConfigError(
            f"{file.parent} cannot be made or written ({error.strerror or error}): choose another folder"
        ) from error
    with _guard:
        if key in _held:
            lock = _held[key]
            lock.count += 1
        else:
            lock = _held[key] = Lock(file, _acquire(key, what, purpose, advice), purpose)
    try:
        yield lock
    finally:
        with _guard:
            lock.count -= 1
            if lock.count == 0 and _held.get(key) is lock:  # not in a forked child, where it is forgotten
                del _held[key]
                _release(key, lock.descriptor)


def _acquire(file: Path, what: Path, purpose: str, advice: str) -> int | None:
    """Descriptor of the locked file."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            raise ConfigError(f"{what} cannot be written ({error.strerror}): choose another folder") from error
        try:
            is_locked = _lock(descriptor, what)
        except BlockingIOError:
            other = _holder(descriptor)
            os.close(descriptor)
            raise LockedError(f"{what} is in use by {other}. {advice}", file) from None
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(f"{what} cannot be locked ({error.strerror}): choose another folder") from error
        if not is_locked:
            os.close(descriptor)
            return None
        # The process before removes its file while it holds the lock: then this is the lock of a file that is no more.
        if _is_same(descriptor, file):
            break
        os.close(descriptor)
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "purpose": purpose,
    }
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(about) + "\n").encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            f"{what} cannot be written ({error.strerror}): make room there, or choose another folder"
        ) from error
    return descriptor


def wait_for(file: Path, pause: float = 0.5) -> None:
    """Returns once no other process holds the lock of a `LockedError`; who comes first afterwards has it."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR)
        except FileNotFoundError:
            return
        try:
            _lock(descriptor, file)
            return
        except BlockingIOError:
            time.sleep(pause)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, what: Path) -> bool:
    """False where there are no locks; raises BlockingIOError if another process holds it."""
    reason: str | None = "this operating system has no flock"
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):  # what NFS and some Unixes say instead
                raise BlockingIOError(*error.args) from error
            if error.errno not in _UNSUPPORTED:
                raise
            reason = error.strerror
    warnings.warn(
        f"{what} cannot be locked here ({reason}): take care that no other process writes there", stacklevel=5
    )
    return False


def _release(file: Path, descriptor: int | None) -> None:
    if descriptor is None:
        file.unlink(missing_ok=True)
        return
    # Removed before it is unlocked, and only if it is ours: whoever waits for it looks whether the file is still there.
    with contextlib.suppress(OSError):  # a folder that is gone or read-only by now; the file disturbs nobody
        if _is_same(descriptor, file):
            file.unlink()
    os.close(descriptor)


def _is_same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except OSError:
        return False


def _holder(descriptor: int) -> str:
    """The process that holds a lock, in words."""
    for _ in range(_READ_AGAIN):
        try:
            about = json.loads(os.pread(descriptor, 10_000, 0))
            pid, host = int(about["pid"]), str(about["host"])
            where = "" if host == socket.gethostname() else f" on {host}"
            purpose, started = str(about["purpose"])[:200], str(about["started"])[:40]
            return f"another process: {purpose}, process {pid}{where}, since {started}"
        except (OSError, ValueError, TypeError, KeyError):
            time.sleep(_READ_PAUSE)
    return "another process"


def _forget_in_child() -> None:
    """A forked child holds no lock: its copies would outlive the process that took them."""
    global _guard
    _guard = threading.RLock()
    while _held:
        _, lock = _held.popitem()
        if lock.descriptor is not None:
            os.close(lock.descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
