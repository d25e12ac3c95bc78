"""Recording many demonstrations in parallel, so that an interrupted call goes on where it stopped."""
from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.files import atomic_path, write_json
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.demos.demonstrator import Demonstrator
from diffusion_policy.demos.storage import read_replay_buffer, stored_settings, write_replay_buffer

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
    """
    output = Path(output)
    if n_episodes < 1:
        raise ValueError(f"n_episodes must be at least 1, not {n_episodes}")
    settings = json.loads(json.dumps({"n_episodes": n_episodes, "seed_start": seed_start, **(settings or {})}))
    if output.exists():
        _require_same(stored_settings(output), settings, output)
        return read_replay_buffer(output)
    # The number of demonstrations is not part of what one of them is: a later call may ask for more.
    parts = Parts(output.with_name(output.name + ".parts"), {k: v for k, v in settings.items() if k != "n_episodes"})
    seeds = record_missing(make_demonstrator, parts, n_episodes, seed_start, n_workers, on_seed)
    write_replay_buffer(output, [parts.load(seed) for seed in seeds], {**settings, "seeds": seeds})
    shutil.rmtree(parts.folder)
    return read_replay_buffer(output)


class Parts:
    """A folder with one file per seed: `<seed>.npz`, or the empty `<seed>.failed`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder = folder
        description = folder / "settings.json"
        if description.exists():
            _require_same(json.loads(description.read_text()), settings, folder)
        elif folder.exists() and any(folder.iterdir()):
            raise DatasetError(f"{folder} is not a folder of unfinished demonstrations: move it away or use another output")
        else:
            write_json(description, settings)

    def outcome(self, seed: int) -> bool | None:
        """Whether the seed's demonstration was kept; None: not recorded yet."""
        if self._path(seed, "npz").exists():
            return True
        return False if self._path(seed, "failed").exists() else None

    def save(self, seed: int, episode: Mapping[str, np.ndarray] | None) -> None:
        with atomic_path(self._path(seed, "failed" if episode is None else "npz")) as temporary:
            with open(temporary, "wb") as file:
                if episode is not None:
                    np.savez(file, **episode)

    def load(self, seed: int) -> dict[str, np.ndarray]:
        path = self._path(seed, "npz")
        try:
            with np.load(path) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{path} cannot be read ({error}): delete it and run the same command again") from error

    def _path(self, seed: int, suffix: str) -> Path:
        return self.folder / f"{seed:06d}.{suffix}"


def record_missing(
    make_demonstrator: Callable[[], Demonstrator], parts: Parts, n_episodes: int, seed_start: int, n_workers: int | None,
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
    most_running = max(1, 2 * n_workers)        # one in work and one in waiting for each
    with _pool(make_demonstrator, n_workers) as submit:
        while len(kept) < n_episodes:
            while len(running) < min(most_running, n_episodes - len(kept)):
                if seed - seed_start >= MAX_ATTEMPTS_PER_DEMO * n_episodes:
                    raise DatasetError(f"the expert succeeded for only {len(kept)} of the {seed - seed_start} seeds tried: "
                                       "something is wrong with it or its simulator")
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
                episode = _result(future, done, parts.folder)
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
            f"a worker process died (out of memory? try fewer n_workers). Finished demonstrations are kept in {folder}; "
            "the same command goes on from there"
        ) from error
    except DatasetError:
        raise
    except Exception as error:
        raise RuntimeError(f"recording the demonstration of seed {seed} failed") from error


@contextlib.contextmanager
def _pool(make_demonstrator: Callable[[], Demonstrator], n_workers: int) -> Iterator[Callable[[int], Future]]:
    """Yields what starts the recording of a seed."""
    if n_workers == 0:
        with contextlib.closing(make_demonstrator()) as demonstrator:
            def submit(seed: int) -> Future:
                future: Future = Future()
                future.set_result(demonstrator.record(seed))
                return future

            yield submit
        return
    # Spawned, not forked: the parent may hold threads of torch or OpenMP.
    pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"), _start_worker,
                               (make_demonstrator,))
    try:
        yield lambda seed: pool.submit(_record, seed)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_demonstrator: Demonstrator | None = None    # of this worker process


def _start_worker(make_demonstrator: Callable[[], Demonstrator]) -> None:
    global _demonstrator
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("LP_NUM_THREADS", "0")    # of Mesa: where a CPU draws, every worker has one of its own
    _demonstrator = make_demonstrator()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for their next seed forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _record(seed: int) -> dict[str, np.ndarray] | None:
    return _demonstrator.record(seed)


def _require_same(found: Mapping[str, Any] | None, wanted: Mapping[str, Any], path: Path) -> None:
    changed = [f"{key} {(found or {}).get(key)!r} there, {value!r} now" for key, value in wanted.items()
               if (found or {}).get(key) != value]
    if changed:
        raise DatasetError(f"{path} holds other demonstrations ({'; '.join(changed)}): remove it or use another output")
