"""The worker side of `VectorEnv`: a process that hosts several environment slots.

Imports stay light (no torch): a worker is ready in well under a second.
"""

from __future__ import annotations

import pickle
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.offscreen import RenderingError
from diffusion_policy.env_runner.contract import EnvironmentContractError
from diffusion_policy.env_runner.multistep import ChunkResult, MultiStep


@dataclass(frozen=True)
class Reset:
    slot: int
    seed: int
    video_path: str | None


@dataclass(frozen=True)
class Step:
    slot: int
    actions: np.ndarray  # [Ta, Da]
    delay: int | None = None  # control steps that the chunk took; None: the world waited for it


@dataclass(frozen=True)
class Failure:
    """An exception in a worker, as text: the exception itself need not survive pickling."""

    slot: int | None
    seed: int | None
    summary: str  # type and message
    traceback: str
    explained: bool = False  # the message says all that its reader needs


# Errors whose message is about what the user has or asked for, not about where in the code it was noticed.
EXPLAINED = (EnvironmentContractError, MissingExtraError, RenderingError)


class SlotHost:
    """Environments by slot, each made by `make_env` on its first reset."""

    def __init__(self, make_env: Callable[[], MultiStep]):
        self._make_env = make_env
        self._envs: dict[int, MultiStep] = {}
        self.seeds: dict[int, int] = {}

    def handle(self, request: Reset | Step) -> ChunkResult:
        if isinstance(request, Step):
            env = self._envs[request.slot]
            return env.step(request.actions) if request.delay is None else env.step(request.actions, request.delay)
        self.seeds[request.slot] = request.seed
        if request.slot not in self._envs:
            self._envs[request.slot] = self._make_env()
        return self._envs[request.slot].reset(request.seed, request.video_path)

    def close(self) -> None:
        while self._envs:
            slot, env = self._envs.popitem()
            try:
                env.close()
            except Exception as error:  # what it did is done; the others have to be closed, too
                warnings.warn(
                    f"the environment of slot {slot} failed in close(): {type(error).__name__}: {error}", stacklevel=2
                )


def main(descriptor: int) -> None:
    """Serve requests from the socket `descriptor` until the other side closes it."""
    # Ctrl-C reaches the whole process group; the parent decides, and closes the socket when it goes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    host = None
    try:
        host = _make_host(connection)
        while host is not None:
            request = connection.recv()
            answer = _answer(host, request)
            connection.send(answer)
            if isinstance(answer, Failure):
                break
    except (EOFError, ConnectionError):
        # The parent closed the vector environment, or died: the way a worker normally ends.
        return
    finally:
        if host is not None:
            host.close()


def describe(error: Exception, slot: int | None = None, seed: int | None = None) -> Failure:
    """`error` as text; call it while the exception is being handled."""
    summary = "".join(traceback.format_exception_only(type(error), error)).strip()
    if isinstance(error, EXPLAINED):
        summary = f"{type(error).__name__}: {error}"
    return Failure(slot, seed, summary, traceback.format_exc(), isinstance(error, EXPLAINED))


def _make_host(connection: Connection) -> SlotHost | None:
    factory = connection.recv_bytes()
    try:
        return SlotHost(pickle.loads(factory))
    except Exception as error:
        connection.send(describe(error))
        return None


def _answer(host: SlotHost, request: Reset | Step) -> tuple[int, ChunkResult] | Failure:
    # Kept apart from sending and receiving: a ConnectionError of the environment itself (say, of a video encoder) is a
    # failure to report, not the end of the parent.
    try:
        return request.slot, host.handle(request)
    except Exception as error:
        return describe(error, request.slot, host.seeds.get(request.slot))
