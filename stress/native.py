"""The native engine in need: threads that cannot start, caches that are damaged or another's, two builders at once."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from stress import samples
from stress.findings import Finding, Findings, Row
from stress.fuzz.damage import damaged
from stress.fuzz.texts import of_json
from stress.patience import naps
from stress.workers import Task, forked

THREADS, ADDRESS_SPACE = 300, 512 << 20
SECONDS = 120  # for a compilation and a chunk
CLOSE = 1e-4  # of the actions of the planned runtime
#: where a library lies that others may have put there: it must be refused, never loaded
UNSAFE = ("folder writable by all", "folder writable by its group", "folder of another user", "library of another user")
DAMAGES = (
    "library cut",
    "library empty",
    "library damaged",
    "library of something else",
    "library is text",
    "library missing",
    "library a folder",
    "record cut",
    "record empty",
    "record damaged",
    "record changed",
    "record missing",
    "record a folder",
    "files exchanged",
    *UNSAFE,
)
# Compiles once, and then gives what it made: what is tried is the cache, not the compiler.
COMPILER = """#!/bin/sh
out=; previous=
for argument; do [ "$previous" = -o ] && out=$argument; previous=$argument; done
kept=$0.$(basename "$out")
if [ -n "$out" ] && [ -f "$kept" ]; then cp "$kept" "$out"; exit; fi
{real} "$@" || exit
case $out in "" | /dev/null) ;; *) cp "$out" "$kept.$$" && mv "$kept.$$" "$kept" ;; esac
"""


def tasks(seed: int, damages: int, scratch: Path, say: Callable[[str], None]) -> list[Task]:
    """Nothing where there is no compiler, which is said."""
    from bac.native.build import find_compiler
    from bac.native.errors import NativeError

    try:
        compiler = find_compiler()
    except NativeError as error:
        say(f"not tried: native, as there is no compiler ({str(error).splitlines()[0]})")
        return []
    samples.lowdim()  # before the forks, which share it
    folder = scratch / "native"
    folder.mkdir(parents=True)
    wrapper = folder / "remembering-compiler"
    wrapper.write_text(COMPILER.format(real=" ".join(compiler)))
    wrapper.chmod(0o755)
    say(f"native: {THREADS} threads in {ADDRESS_SPACE >> 20} MB, {damages} damaged caches, two builders at once")
    return [partial(_all, seed, damages, folder, str(wrapper), say)]


def act(runtime: str, threads: int = 1, address_space: int | None = None) -> list[float]:
    """A chunk of actions of the tiny policy."""
    import torch

    from bac import accelerate

    policy, _ = samples.lowdim()
    observation = policy.random_observation(1, torch.Generator().manual_seed(0))
    with accelerate(policy, None, runtime, threads=threads if runtime == "compiled" else None) as fast:
        if address_space is not None:
            size = next(
                line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")
            )
            resource.setrlimit(resource.RLIMIT_AS, (int(size.split()[1]) * 1024 + address_space,) * 2)
        return fast.predict_action(observation, torch.Generator().manual_seed(0))["action"].flatten().tolist()


def child(work: Callable[[], Any], folder: Path, cache: Path, compiler: str) -> dict[str, Any]:
    """What `work` gave in a fork: {"value"}, or {"error", "text"} of its exception, or {"signal"} that ended it."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)

    def prepared() -> Any:
        os.environ.update(BAC_CACHE=str(cache), CXX=compiler)
        return work()

    pid = forked(prepared, answer, folder / "output.txt")
    for _ in naps(SECONDS):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return {"signal": f"none: no answer in {SECONDS} s"}
    if os.WIFSIGNALED(status):
        return {"signal": str(os.WTERMSIG(status))}
    return json.loads(answer.read_text())


def _all(seed: int, damages: int, folder: Path, compiler: str, say: Callable[[str], None], findings: Findings) -> Row:
    begin, tried, failed = time.monotonic(), 0, 0

    def judge(what: str, problem: str | None, outcome: dict[str, Any]) -> None:
        nonlocal tried, failed
        tried, failed = tried + 1, failed + bool(problem)
        if problem:
            findings.add(
                Finding(
                    "native",
                    what,
                    "native",
                    problem,
                    str(outcome.get("traceback", outcome))[-3000:],
                    f"python -m stress parts=native seed={seed} damages={damages}",
                )
            )

    expected = child(lambda: act("planned"), folder, folder / "none", compiler)["value"]
    cache = folder / "cache"
    for what, outcome in zip(
        ("two builders at once: first", "two builders at once: second"), _two(folder, cache, compiler)
    ):
        judge(what, _wrong(outcome, expected), outcome)
    outcome = child(lambda: act("compiled", THREADS, ADDRESS_SPACE), folder, cache, compiler)
    judge("many threads", None if "value" in outcome else _no_exception(outcome), outcome)
    threads = outcome.get("error", "they act")
    sound = folder / "sound"
    shutil.copytree(cache, sound)
    for number in range(damages):
        rng = Random(f"native/{seed}/{number}")
        damage = DAMAGES[number % len(DAMAGES)]
        shutil.rmtree(cache)
        shutil.copytree(sound, cache)
        cache.chmod(0o700)
        spoil(damage, cache, rng)
        outcome = child(lambda: act("compiled"), folder, cache, compiler)
        if damage in UNSAFE or damage.endswith("a folder"):  # which is not replaced, but named
            refused = outcome.get("error") == "CacheError"
            rebuilt = damage == "library of another user" and _wrong(outcome, expected) is None
            judge(damage, None if refused or rebuilt else f"it is not refused: {_described(outcome)}", outcome)
        else:
            judge(damage, _wrong(outcome, expected), outcome)
            outcome = child(lambda: act("compiled"), folder, cache, compiler)
            judge(f"{damage}: after it", _wrong(outcome, expected), outcome)
    shutil.rmtree(folder, ignore_errors=True)
    say(f"  native: {tried} tried, {failed} failed, {time.monotonic() - begin:.0f} s")
    note = f"{damages} damaged caches, two builders, {THREADS} threads: {threads}"
    return Row("native", "engine", tried, tried - failed, failed, time.monotonic() - begin, None, note)


def _two(folder: Path, cache: Path, compiler: str) -> list[dict[str, Any]]:
    """Two processes that find no library and compile at the same time; the compiler remembers nothing yet."""
    pids = []
    for name in ("first", "second"):
        (folder / name).mkdir()

        def work() -> list[float]:
            os.environ.update(BAC_CACHE=str(cache), CXX=compiler)
            return act("compiled")

        pids.append(forked(work, folder / name / "answer.json", folder / name / "output.txt"))
    outcome = []
    for name, pid in zip(("first", "second"), pids):
        _, status = os.waitpid(pid, 0)
        signalled = os.WIFSIGNALED(status)
        outcome.append(
            {"signal": str(os.WTERMSIG(status))}
            if signalled
            else json.loads((folder / name / "answer.json").read_text())
        )
    return outcome


def spoil(damage: str, cache: Path, rng: Random) -> None:
    """Does to a cache what `damage` says."""
    library, record = next(cache.glob("*.so")), next(cache.glob("*.json"))
    what, _, how = damage.partition(" ")
    file = {"library": library, "record": record}.get(what, cache)
    if damage == "files exchanged":
        content = library.read_bytes()
        library.write_bytes(record.read_bytes())
        record.write_bytes(content)
    elif how in ("writable by all", "writable by its group"):
        file.chmod(0o777 if how == "writable by all" else 0o770)
    elif how == "of another user":
        with contextlib.suppress(PermissionError):  # only root can
            os.chown(file, 12345, 12345)
    elif how in ("missing", "a folder"):
        file.unlink()
        if how == "a folder":
            file.mkdir()
    else:
        content = file.read_bytes()
        file.write_bytes(
            {
                "cut": lambda: content[: rng.randrange(1, len(content))],
                "empty": lambda: b"",
                "damaged": lambda: damaged(rng, content),
                "changed": lambda: of_json(rng, content),
                "is text": lambda: b"not a library\n" * 50,
                "of something else": lambda: Path(
                    next(
                        line.split()[-1]
                        for line in Path("/proc/self/maps").read_text().splitlines()
                        if "libc.so" in line or "libc-" in line or "ld-musl" in line
                    )
                ).read_bytes(),
            }[how]()
        )


def _wrong(outcome: dict[str, Any], expected: list[float]) -> str | None:
    """None if these are the expected actions."""
    if "value" not in outcome:
        return f"it does not act: {_described(outcome)}"
    error = max(abs(a - b) for a, b in zip(outcome["value"], expected, strict=True))
    return None if error < CLOSE else f"its actions are off by {error:.3g}"


def _no_exception(outcome: dict[str, Any]) -> str | None:
    return (
        None
        if "error" in outcome and outcome["error"] != "SystemError"
        else f"no Python exception: {_described(outcome)}"
    )


def _described(outcome: dict[str, Any]) -> str:
    return (
        f"ended by signal {outcome['signal']}"
        if "signal" in outcome
        else f"{outcome.get('error', 'it acts')}: {outcome.get('text', '')[:200]}"
    )
