"""Recording many demonstrations in parallel, so that an interrupted call goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.stored_demos import (
    read_replay_buffer,
    stored_settings,
    write_replay_buffer,
)
from diffusion_policy.demos.demonstrator import Demonstrator
from diffusion_policy.demos.parts import Parts, remove_parts, require_same
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.offscreen import RenderingError

# Gives up when fewer than one seed in this many leads to a demonstration.
MAX_ATTEMPTS_PER_DEMO = 10
# Called after every seed with (seed, whether its demonstration was kept).
OnSeed = Callable[[int, bool], None]


def collect(
    make_demonstrator: Callable[[], Demonstrator],
    output: str | Path,
    n_episodes: int,
    seed_start: int = 0,
    n_workers: int | None = None,
    settings: Mapping[str, Any] | None = None,
    on_seed: OnSeed | None = None,
) -> ReplayBuffer:
    """Records the first `n_episodes` demonstrations from `seed_start` on to a zarr folder, in the order of their seeds.

    Finished ones lie in `<output>.parts`, one file per seed, until all are there; the same call goes on with them. The
    result does not depend on the number of workers or on interruptions.

    Args:
        make_demonstrator: called once in every worker; picklable and importable.
        output: appears complete or not at all.
        n_workers: processes; default: one per core. 0: in this process.
        settings: what decides the demonstrations; stored with them, and compared with those already there.

    Raises:
        DatasetError: `output` or the parts hold other demonstrations, the expert hardly ever succeeds, a worker died.
        LockedError: another process makes demonstrations there.
        ValueError: a number that cannot be.
    """
    from diffusion_policy.common.lock import (
        locked_output,  # here: workers import this module, and need none of its imports
    )

    output = Path(output)
    check_numbers(n_episodes=(n_episodes, 1), seed_start=(seed_start, 0), n_workers=(n_workers, 0))
    settings = json.loads(json.dumps({"n_episodes": n_episodes, "seed_start": seed_start, **(settings or {})}))
    parts_folder = output.with_name(output.name + ".parts")
    with locked_output(output, f"demonstrations for {output.name}"):
        # The number of demonstrations is not part of what one of them is: a later call may ask for more.
        wanted = {key: value for key, value in settings.items() if key != "n_episodes"}
        if output.exists():
            require_same(stored_settings(output), settings, output)
            remove_parts(parts_folder)  # of a call that was killed when it had finished
            return read_replay_buffer(output)
        parts = Parts(parts_folder, wanted)
        if (there := parts.count()) > n_episodes:
            raise DatasetError(
                f"{parts_folder} holds {there} finished demonstrations, more than n_episodes={n_episodes}: "
                f"use n_episodes={there} or more, or another output; or remove them"
            )
        seeds = record_missing(make_demonstrator, parts, n_episodes, seed_start, n_workers, on_seed)
        write_replay_buffer(output, [parts.load(seed) for seed in seeds], {**settings, "seeds": seeds})
        remove_parts(parts_folder)
        return read_replay_buffer(output)


def check_numbers(**numbers: tuple[int | None, int]) -> None:
    """Raises ValueError unless each is a whole number of at least its second; only n_workers may be None."""
    for name, (value, least) in numbers.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not whole and not (value is None and name == "n_workers"):
            raise InputError(f"{name}={value} is not possible: use a whole number of at least {least}")


def record_missing(
    make_demonstrator: Callable[[], Demonstrator],
    parts: Parts,
    n_episodes: int,
    seed_start: int,
    n_workers: int | None,
    on_seed: OnSeed | None,
) -> list[int]:
    """Records until `n_episodes` demonstrations are there. Returns their seeds.

    Seeds start in increasing order, and only as many as could still be needed: the seeds that were tried end with the
    last demonstration that is kept, whatever the order in which workers finish.
    """
    kept: list[int] = []
    running: dict[Future, int] = {}
    seed = seed_start
    n_workers = os.cpu_count() or 1 if n_workers is None else n_workers
    most_running = max(1, 2 * n_workers)  # one in work and one in waiting for each
    with _pool(make_demonstrator, n_workers) as submit:
        while len(kept) < n_episodes:
            while len(running) < min(most_running, n_episodes - len(kept)):
                if seed - seed_start >= MAX_ATTEMPTS_PER_DEMO * n_episodes:
                    raise DatasetError(
                        f"the expert succeeded for only {len(kept)} of the {seed - seed_start} seeds tried: "
                        "something is wrong with it or its simulator"
                    )
                outcome = parts.outcome(seed)
                if outcome is None:
                    running[submit(seed)] = seed
                else:
                    kept += [seed] if outcome else []
                    if on_seed is not None:
                        on_seed(seed, outcome)
                seed += 1
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                done = running.pop(future)
                episode = _finite(_result(future, done, parts.folder), done)
                parts.save(done, episode)
                kept += [done] if episode is not None else []
                if on_seed is not None:
                    on_seed(done, episode is not None)
    return sorted(kept)


def _result(future: Future, seed: int, folder: Path) -> dict[str, np.ndarray] | None:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process died (out of memory? try fewer n_workers). Finished demonstrations are kept in "
            f"{folder}; the same command goes on from there"
        ) from error
    except (DatasetError, RenderingError, MissingExtraError):
        raise
    except Exception as error:
        raise RuntimeError(f"recording the demonstration of seed {seed} failed") from error


def _finite(episode: dict[str, np.ndarray] | None, seed: int) -> dict[str, np.ndarray] | None:
    """A policy would learn from them; what else is recorded may mark with NaN what there is none of."""
    for name in ("action", "actions"):
        values = None if episode is None else episode.get(name)
        if values is not None and not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
            raise DatasetError(
                f"the demonstration of seed {seed} holds an action that is not finite, in row {row}: the expert or its "
                "simulator is broken"
            )
    return episode


@contextlib.contextmanager
def _pool(make_demonstrator: Callable[[], Demonstrator], n_workers: int) -> Iterator[Callable[[int], Future]]:
    """Yields what starts the recording of a seed."""
    if n_workers == 0:
        with contextlib.closing(make_demonstrator()) as demonstrator:

            def submit(seed: int) -> Future:
                future: Future = Future()
                try:
                    future.set_result(demonstrator.record(seed))
                except Exception as error:  # as of a worker
                    future.set_exception(error)
                return future

            yield submit
        return
    # Spawned, not forked: the parent may hold threads of torch or OpenMP.
    pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"), _start_worker, (make_demonstrator,))

    def submit_to_pool(seed: int) -> Future:
        try:
            return pool.submit(_record, seed)
        except BrokenProcessPool as error:  # a worker has died since the last result
            future: Future = Future()
            future.set_exception(error)
            return future

    try:
        yield submit_to_pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_demonstrator: Demonstrator | Exception | None = None  # of this worker process, or why there is none


def _start_worker(make_demonstrator: Callable[[], Demonstrator]) -> None:
    global _demonstrator
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("LP_NUM_THREADS", "0")  # of Mesa: where a CPU draws, every worker has one of its own
    try:
        _demonstrator = make_demonstrator()
    except Exception as error:  # raised when a seed is asked for: here it would only break the pool
        _demonstrator = error


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for their next seed forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _record(seed: int) -> dict[str, np.ndarray] | None:
    if isinstance(_demonstrator, Exception):
        raise _demonstrator
    return _demonstrator.record(seed)
