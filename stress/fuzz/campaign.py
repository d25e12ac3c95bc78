"""Divides the inputs among child processes, replaces those that die, and collects what they found."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stress.findings import Finding, Findings, Row
from stress.fuzz import child
from stress.fuzz.child import Board, Shard, mutated, write_files
from stress.fuzz.hostile import by_hand
from stress.fuzz.loaders import Kind, sound
from stress.patience import NAP

SHARD = 4_000  # inputs after which a child gives way to a fresh one
WALL_SECONDS = 120  # an input may take so long with waiting, which is not processor time


@dataclass
class Tally:
    """What became of one kind's inputs."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    findings: int = 0
    deaths: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    peak: int = 0


@dataclass
class Running:
    """A child at work."""

    pid: int
    shard: Shard
    board: Board
    report: Path
    folder: Path
    begin: float = field(default_factory=time.monotonic)
    index: int = -1  # of the input that was in progress at the last look
    looks: int = 0  # since it is


def counts(kinds: Sequence[Kind], inputs: int) -> dict[Kind, int]:
    """How many inputs each kind gets: its share, but at least all that are made by hand."""
    whole = sum(kind.share for kind in kinds)
    return {
        kind: max(
            round(inputs * kind.share / whole),
            len(by_hand(kind.hostile, sound(kind).files)) + 10 if kind.hostile else 10,
        )
        for kind in kinds
    }


def run(
    kinds: Sequence[Kind],
    inputs: int,
    seed: int,
    jobs: int,
    scratch: Path,
    findings: Findings,
    say: Callable[[str], None],
) -> list[Row]:
    """Reads `inputs` inputs in `jobs` processes at once; one row per kind."""
    shards = []
    for kind, count in counts(kinds, inputs).items():
        shards += [Shard(kind, seed, first, min(count, first + SHARD)) for first in range(0, count, SHARD)]
    shards.sort(key=lambda shard: shard.kind.share)  # the slow ones first, so that both processes end together
    tallies = {kind: Tally() for kind in kinds}
    running: dict[int, Running] = {}
    number = 0
    try:
        while shards or running:
            while shards and len(running) < jobs:
                number += 1
                one = start(shards.pop(0), scratch / f"child-{number}")
                running[one.pid] = one
            time.sleep(NAP)
            for pid, one in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended:
                    index = one.board.read()[0]
                    one.index, one.looks = index, one.looks + 1 if index == one.index else 0
                    if one.looks > WALL_SECONDS / NAP:
                        os.kill(pid, signal.SIGKILL)
                    continue
                del running[pid]
                rest = collect(one, status, tallies[one.shard.kind], findings)
                shutil.rmtree(one.folder, ignore_errors=True)
                if rest is not None:
                    shards.insert(0, rest)
                elif not any(
                    other.kind is one.shard.kind for other in (*shards, *(item.shard for item in running.values()))
                ):
                    tally = tallies[one.shard.kind]
                    say(
                        f"  {one.shard.kind.name}: {tally.tried:,} inputs, {tally.accepted:,} read, "
                        f"{tally.refused:,} refused, "
                        f"{tally.findings} findings, {tally.seconds:.0f} s"
                    )
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return [
        Row(
            "fuzz",
            kind.name,
            tally.tried,
            tally.tried - tally.findings,
            tally.findings,
            tally.seconds,
            tally.peak,
            f"{tally.accepted:,} read, {tally.refused:,} refused, slowest {tally.slowest:.2f} s",
        )
        for kind, tally in tallies.items()
    ]


def start(shard: Shard, folder: Path) -> Running:
    folder.mkdir(parents=True)
    board, report = Board(), folder / "findings.jsonl"
    sound(shard.kind)  # made before the fork, for all children
    by_hand(shard.kind.hostile, sound(shard.kind).files)
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            child.work(shard, folder / "in", board, report)
            status = 0
        except BaseException:  # nothing of the parent may run in the child, whatever happens
            import traceback

            report.with_suffix(".error").write_text(traceback.format_exc())
        finally:
            os._exit(status)
    return Running(pid, shard, board, report, folder)


def collect(one: Running, status: int, tally: Tally, findings: Findings) -> Shard | None:
    """Takes over what an ended child did; returns what is left of its inputs if it died before their end."""
    index, accepted, refused, peak, slowest = one.board.read()
    shard, kind = one.shard, one.shard.kind
    tally.accepted, tally.refused = tally.accepted + accepted, tally.refused + refused
    tally.peak, tally.slowest = max(tally.peak, peak), max(tally.slowest, slowest)
    tally.seconds += time.monotonic() - one.begin
    reported = [json.loads(line) for line in one.report.read_text().splitlines()] if one.report.exists() else []
    for item in reported:
        add(findings, tally, shard, item["index"], item["what"], item["summary"], item["detail"])
    done = accepted + refused
    if (
        os.waitstatus_to_exitcode(status) == 0 and index == shard.last
    ):  # an input that ends the interpreter leaves less done
        tally.tried += done
        return None
    error = one.report.with_suffix(".error")
    if index < 0 or error.exists():  # not an input's doing: the harness, or a sound file that is not read
        detail = error.read_text() if error.exists() else f"exit status {os.waitstatus_to_exitcode(status)}"
        raise RuntimeError(f"the child that reads {kind.name!r} failed by itself at input {index}:\n{detail}")
    crash = one.report.with_suffix(".crash")
    died = (
        f"signal {os.WTERMSIG(status)}"
        if os.WIFSIGNALED(status)
        else f"exit status {os.waitstatus_to_exitcode(status)}"
    )
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        what, summary = "time", f"more than {child.SECONDS} s of processor time"
    elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        what, summary = "time", f"killed after {WALL_SECONDS} s without an answer"
    else:
        what, summary = "death", f"the interpreter ended with {died}"
    add(findings, tally, shard, index, what, summary, crash.read_text() if crash.exists() else "")
    tally.tried += done + 1
    tally.deaths += 1
    return Shard(kind, shard.seed, index + 1, shard.last) if index + 1 < shard.last else None


def add(findings: Findings, tally: Tally, shard: Shard, index: int, what: str, summary: str, detail: str) -> None:
    """Stores a finding with its whole input: the sound files with the mutated ones in their place."""
    tally.findings += 1
    kind = shard.kind
    files = {**sound(kind).files, **mutated(kind, shard.seed, index)}
    again = f"python -m stress again={kind.name!r} seed={shard.seed} index={index}"
    findings.add(Finding("fuzz", kind.name, what, summary, detail, again), lambda folder: write_files(folder, files))


def again(kind: Kind, seed: int, index: int, folder: Path) -> None:
    """Writes one input to `folder` and reads it in this process, without limits."""
    write_files(folder, {**sound(kind).files, **mutated(kind, seed, index)})
    kind.load(folder / sound(kind).entry)
