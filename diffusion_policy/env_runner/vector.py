"""Many environments in worker processes, asked without blocking."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

from diffusion_policy.common.errors import InputError, UserError
from diffusion_policy.env_runner.multistep import ChunkResult, MultiStep
from diffusion_policy.env_runner.worker import Failure, Reset, SlotHost, Step, describe

_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from diffusion_policy.env_runner.worker import main; main(int(sys.argv[1]))"
)
# LP_NUM_THREADS is Mesa's, which draws on the CPU where there is no GPU: the same pixels in a fifth less processor
# time.
_SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}

CLOSE_GRACE_S = 2.0  # for workers to finish their step and close their environments


class EnvWorkerError(UserError, RuntimeError):
    """An environment raised an exception. The message ends with the worker's own traceback."""


class EnvWorkerDied(EnvWorkerError):
    """A worker process ended, or stopped answering, without an exception of its own."""


class EnvFactoryError(EnvWorkerError, TypeError):
    """What makes the environments cannot be sent to worker processes."""


def check_workers(n_envs: int, n_workers: int | None) -> None:
    """Raises ValueError unless they are numbers of environments and, None: as many as fit, of processes."""
    for name, value, least in (("n_envs", n_envs, 1), ("n_workers", n_workers, 0)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and value >= least) and not (name == "n_workers" and value is None):
            raise InputError(f"{name}={value} is not possible: use a whole number of at least {least}")


class VectorEnv:
    """`n_envs` slots with one environment each, spread over `n_workers` processes (slot s is in worker s % n_workers).

    `reset` and `step` only send a request; `receive` waits for the next answer of any slot. A slot takes one request
    at a time. Use it as a context manager, or call `close`.

    Workers are new interpreters (POSIX), safe beside CUDA and GL contexts. Unlike multiprocessing's spawn they do not
    import the running script again, which would cost every worker the import of torch.

    Args:
        make_env: makes the environment of a slot, in the worker. It must be picklable and importable: a function or
            class of a module (not of the running script), or a functools.partial of one.
        n_workers: default: one per CPU, at most `n_envs`. 0 runs everything in this process, for tests and debugging.
        timeout_s: `receive` gives up on workers that have not answered for this long.
    """

    def __init__(
        self, make_env: Callable[[], MultiStep], n_envs: int, n_workers: int | None = None, timeout_s: float = 600.0
    ):
        check_workers(n_envs, n_workers)
        if n_workers is None:
            n_workers = min(n_envs, os.cpu_count() or 1)
        self.n_envs = n_envs
        self.timeout_s = timeout_s
        self._pending: set[int] = set()
        self._seeds: dict[int, int] = {}
        self._workers: list[_Worker] = []
        self._host: SlotHost | None = None
        self._queue: deque[Reset | Step] = deque()  # in-process only
        if n_workers == 0:
            self._host = SlotHost(make_env)
            return
        factory = _pickled(make_env)
        try:
            for _ in range(min(n_workers, n_envs)):
                self._workers.append(_Worker(factory))
        except BaseException:
            self.close()
            raise

    @property
    def n_pending(self) -> int:
        """Requests whose answers have not been received."""
        return len(self._pending)

    def awaits(self, slots: slice) -> bool:
        """Whether an answer of one of these slots has not been received."""
        return any(slots.start <= slot < slots.stop for slot in self._pending)

    def reset(self, slot: int, seed: int, video_path: str | Path | None = None) -> None:
        """Ask `slot` to start the episode of `seed`, recorded to `video_path` if one is given."""
        self._send(Reset(slot, int(seed), None if video_path is None else str(video_path)))

    def step(self, slot: int, actions: np.ndarray, delay: int | None = None) -> None:
        """Ask `slot` to execute an action chunk [Ta, Da].

        Args:
            delay: control steps that it took, of environments whose world goes on (`RealTimeStep`).
        """
        self._send(Step(slot, np.array(actions), delay))

    def receive(self) -> tuple[int, ChunkResult]:
        """The next answer, as (slot, result); blocks until there is one.

        Raises:
            EnvWorkerError: an environment failed; EnvWorkerDied: a worker was killed or no longer answers.
        """
        if not self._pending:
            raise RuntimeError("receive() without a pending request would wait forever")
        slot, result = self._receive_local() if self._host is not None else self._receive_remote()
        self._pending.discard(slot)
        return slot, result

    def close(self) -> None:
        """End all workers, at the latest a few seconds from now."""
        if self._host is not None:
            self._host.close()
            self._host = None
        for worker in self._workers:
            worker.connection.close()  # a worker ends when its connection does
        deadline = time.monotonic() + CLOSE_GRACE_S
        for worker in self._workers:
            worker.end(deadline)
        self._workers = []
        self._pending.clear()
        self._queue.clear()

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _send(self, request: Reset | Step) -> None:
        slot = request.slot
        if not 0 <= slot < self.n_envs:
            raise ValueError(f"slot {slot} does not exist: there are {self.n_envs}")
        if slot in self._pending:
            raise RuntimeError(f"slot {slot} still has a request pending: receive() its answer first")
        if isinstance(request, Reset):
            self._seeds[slot] = request.seed
        if self._host is not None:
            self._queue.append(request)
        elif not self._workers:
            raise RuntimeError("this VectorEnv is closed")
        else:
            worker = self._workers[slot % len(self._workers)]
            try:
                worker.connection.send(request)
            except OSError:
                raise self._death(worker) from None
        self._pending.add(slot)

    def _receive_local(self) -> tuple[int, ChunkResult]:
        request = self._queue.popleft()
        try:
            return request.slot, self._host.handle(request)
        except Exception as error:
            failure = describe(error, request.slot, self._host.seeds.get(request.slot))
            raise EnvWorkerError(_message(failure)) from error

    def _receive_remote(self) -> tuple[int, ChunkResult]:
        waiting = {id(worker.connection): worker for worker in self._workers}
        # A dead worker's socket is readable too: it ends. So this also wakes up for a killed process.
        ready = wait([worker.connection for worker in self._workers], timeout=self.timeout_s)
        if not ready:
            raise EnvWorkerDied(
                f"no environment has answered for {self.timeout_s:g} s "
                f"(waiting for slots {sorted(self._pending)}); a simulator hangs, "
                "or timeout_s is too small for this task"
            )
        worker = waiting[id(ready[0])]
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        if isinstance(answer, Failure):
            raise EnvWorkerError(_message(answer))
        return answer

    def _death(self, worker: _Worker) -> EnvWorkerError:
        """Why `worker` is gone: the failure that it left behind, or else its exit code."""
        failure = worker.last_words()
        if failure is not None:
            return EnvWorkerError(_message(failure))
        index = self._workers.index(worker)
        seeds = {slot: seed for slot, seed in sorted(self._seeds.items()) if slot % len(self._workers) == index}
        where = ", ".join(f"slot {slot}: seed {seed}" for slot, seed in seeds.items())
        return EnvWorkerDied(f"environment worker {index} ({where}) {worker.cause_of_death()}")


class _Worker:
    """A worker process and the connection to it."""

    def __init__(self, factory: bytes):
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-X",
                    "faulthandler",
                    "-c",
                    _BOOTSTRAP,
                    str(theirs.fileno()),
                    json.dumps([str(entry) for entry in sys.path]),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_SINGLE_THREADED},
            )
        self.connection = Connection(ours.detach())
        self.connection.send_bytes(factory)

    def last_words(self) -> Failure | None:
        """The failure among the answers not yet received, if there is one. Call it when the worker has ended."""
        try:
            while self.connection.poll():
                answer = self.connection.recv()
                if isinstance(answer, Failure):
                    return answer
        except (EOFError, OSError):
            return None
        return None

    def cause_of_death(self) -> str:
        try:
            code = self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "closed its connection but still runs; its output above may say why"
        if code == -signal.SIGKILL:
            return (
                f"was killed (exit code {code}, SIGKILL): likely out of memory. "
                "Use fewer environments (n_envs) or fewer workers (n_workers)"
            )
        if code < 0:
            return f"was ended by {signal.Signals(-code).name} (exit code {code}); its output above may say why"
        return f"ended with exit code {code} without an error message; its output above may say why"

    def end(self, deadline: float) -> None:
        for stop in (self.process.terminate, self.process.kill):
            try:
                self.process.wait(timeout=max(0.0, deadline - time.monotonic()))
                return
            except subprocess.TimeoutExpired:
                stop()
                deadline = time.monotonic() + 1.0
        self.process.wait()


def _message(failure: Failure) -> str:
    where = "an environment worker" if failure.slot is None else f"environment slot {failure.slot}"
    seed = "" if failure.seed is None else f" (seed {failure.seed})"
    details = "" if failure.explained else f"\n\nTraceback of the worker:\n{failure.traceback}"
    return f"{where}{seed} failed: {failure.summary}{details}"


def _pickled(make_env: Callable[[], MultiStep]) -> bytes:
    advice = "give a function or class that workers can import from a module, or a functools.partial of one"
    try:
        factory = pickle.dumps(make_env)
    except Exception as error:
        raise EnvFactoryError(f"make_env cannot be sent to worker processes ({error}): {advice}") from error
    if b"__main__" in factory:
        raise EnvFactoryError(f"make_env is defined in the running script, which workers do not import: {advice}")
    return factory
