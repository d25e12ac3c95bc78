"""A child process that reads one mutated input after another, and what it watches for."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random

from stress.fuzz import containers, damage
from stress.fuzz.hostile import by_hand
from stress.fuzz.loaders import Kind, sound

MEMORY = 1 << 30  # bytes above what the process has before the first input
SECONDS = 10  # of processor time for one input
FORBIDDEN = {
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "ctypes.dlopen",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "urllib.Request",
    "os.kill",
    "pickle.find_class",
    "webbrowser.open",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PATHS = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.chmod": (0,),
    "os.symlink": (1,),
    "os.link": (1,),
    "os.truncate": (0,),
    "shutil.rmtree": (0,),
}


@dataclass(frozen=True)
class Shard:
    """Inputs `first` to `last` - 1 of one kind under one seed."""

    kind: Kind
    seed: int
    first: int
    last: int


class Board:
    """Memory that parent and child share: how far the child is, so that its death can be pinned to an input."""

    FORM = struct.Struct("<qqqqd")  # index in progress, accepted, refused, peak bytes, seconds of the slowest

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, self.FORM.size)
        self.write(-1, 0, 0, 0, 0.0)

    def write(self, *values: float) -> None:
        self.FORM.pack_into(self.memory, 0, *values)

    def read(self) -> tuple:
        return self.FORM.unpack_from(self.memory, 0)


def mutated(kind: Kind, seed: int, index: int) -> dict[str, bytes | None]:
    """Input `index`: file name -> content for those that differ from the sound ones, None for one that is missing.

    The first inputs are the hand-made ones, the others depend on the kind's name, the seed and the index alone.
    """
    files = sound(kind).files
    hand_made = by_hand(kind.hostile, files)
    if index < len(hand_made):
        return hand_made[index][1]
    rng = Random(f"{kind.name}/{seed}/{index}")
    names = list(files)
    # Descriptions decide what is read how, and are few among the chunks of numbers.
    telling = [name for name in names if not name.rpartition("/")[2].replace(".", "").isdigit()]
    name = rng.choice(telling if rng.random() < 0.7 else names)
    if len(names) > 1 and rng.random() < 0.06:
        other = rng.choice(names)
        return rng.choice(({name: None}, {name: files[other]}, {name: files[other], other: files[name]}, {name: b""}))
    if rng.random() < 0.02:
        start = damage.damaged(rng, files[name][:64])
        return {name: rng.choice((b"", b"\x00" * 4096, start, b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"{}", b"[]"))}
    return {name: containers.of_file(name)(rng, files[name])}


def write_files(folder: Path, files: dict[str, bytes | None]) -> None:
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileExistsError):
                path.parent.mkdir(parents=True)
            path.write_bytes(content)


def restore(folder: Path, kind: Kind, changed: dict[str, bytes | None]) -> None:
    """Back to the sound files; where reading writes, whatever it wrote goes."""
    if kind.leaves:
        shutil.rmtree(folder, ignore_errors=True)
        write_files(folder, sound(kind).files)
    else:
        write_files(folder, {name: sound(kind).files.get(name) for name in changed})


class Watch:
    """An audit hook: what a file makes the interpreter do that no reading needs."""

    def __init__(self, folder: Path):
        self.folder, self.armed, self.seen = str(folder), False, ""
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.armed:
            return
        if event in FORBIDDEN:
            self.seen = self.seen or f"{event} {str(arguments)[:200]}"
        elif (
            event == "open"
            and isinstance(arguments[2], int)
            and arguments[2] & WRITING
            and self.is_outside(arguments[0])
        ):
            self.seen = self.seen or f"writes {arguments[0]}"
        elif event in PATHS and any(self.is_outside(arguments[index]) for index in PATHS[event]):
            self.seen = self.seen or f"{event} {str(arguments)[:200]}"

    def is_outside(self, path: object) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)) or os.fsdecode(path) == os.devnull:
            return False
        return not os.path.abspath(os.fsdecode(path)).startswith(self.folder)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out anywhere on the way to this error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if (
            isinstance(error, MemoryError)
            or "not enough memory" in str(error)[:500]
            or "can't allocate" in str(error)[:500]
        ):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def work(shard: Shard, folder: Path, board: Board, report: Path) -> None:
    """Reads all inputs of `shard` in `folder`; findings go to `report`, one JSON line each. Runs in a forked child."""
    kind, errors = shard.kind, shard.kind.errors()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    faulthandler.enable(open(report.with_suffix(".crash"), "w"))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(folder.parent)
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    write_files(folder, sound(kind).files)
    path = folder / sound(kind).entry
    kind.load(path)  # a sound one is read, and whatever is imported late is imported now
    restore(folder, kind, {})
    watch = Watch(folder.parent)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    resource.setrlimit(resource.RLIMIT_AS, (int(status["VmSize"].split()[0]) * 1024 + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the timer's signal ends the process, whatever code it is in
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accepted = refused = 0
    slowest = 0.0
    with open(report, "a") as findings:
        for index in range(shard.first, shard.last):
            changed = mutated(kind, shard.seed, index)
            write_files(folder, changed)
            begin, watch.seen = time.process_time(), ""
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            board.write(index, accepted, refused, (peak - base) * 1024, slowest)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            problem = None
            try:
                watch.armed = True
                kind.load(path)
                accepted += 1
            except errors as error:
                refused += 1
                if out_of_memory(error):
                    problem = "memory", "more than 1 GB was asked for, which was then refused", traceback.format_exc()
            except BaseException as error:  # the point of it: whatever comes is a finding
                refused += 1
                what = "memory" if out_of_memory(error) else "exception"
                problem = what, f"{type(error).__name__}: {str(error)[:200]}", traceback.format_exc()
            finally:
                watch.armed = False
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - begin)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
            if grown > MEMORY:
                problem = "memory", f"it took {grown / 1e9:.1f} GB", ""
            if watch.seen:
                problem = "ran code or left its folder", watch.seen, ""
            if problem:
                what, summary, detail = problem
                findings.write(
                    json.dumps({"index": index, "what": what, "summary": summary, "detail": detail[-3000:]}) + "\n"
                )
                findings.flush()
            restore(folder, kind, changed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    board.write(shard.last, accepted, refused, (peak - base) * 1024, slowest)
