"""Sound clients that ask without a pause, hostile ones beside them, a reload in the middle, a shutdown at the end."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from websockets.exceptions import ConnectionClosed

from stress.findings import Finding, Findings, Row
from stress.serving.hostile import ATTACKS
from stress.serving.process import END, Request, ServerProcess, labelled, problem_of, requests

Say = Callable[[str], None]
GROWTH = 48 << 20  # bytes of resident memory: less than a policy that is not let go takes
RELOAD = 120  # seconds
PAUSE = 0.2  # seconds between two tries of a hostile client


@dataclass
class Counted:
    """What one kind of client has tried, written by its own threads."""

    kind: str
    tried: int = 0
    problems: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, note: str) -> Row:
        wrong = len(self.problems)
        return Row("serve", self.kind, self.tried, self.tried - wrong, wrong, self.seconds, None, note)


def run(seed: int, seconds: int, clients: int, scratch: Path, findings: Findings, say: Say) -> list[Row]:
    """One row for each kind of client, for the reload and for the shutdown."""
    from bac.native.build import find_compiler
    from bac.native.errors import NativeError

    runtime = "compiled"
    try:
        find_compiler()
    except NativeError:
        runtime = "planned"
        say("serve: there is no compiler, so runtime=planned is served")
    say(f"serve: {clients} clients for {seconds} s, {len(ATTACKS)} kinds of hostile ones beside them")
    sound = requests(32, runtime)
    folder = scratch / "serve"
    folder.mkdir(parents=True)
    with ServerProcess(folder, runtime, clients + 2 * len(ATTACKS)) as server:
        counted = _under_load(server, sound, seed, seconds, clients)
        rows = [each.row(note) for each, note in counted]
        wrong = [(each.kind, text) for each, _ in counted for text in each.problems]
        log = server.log.read_text()
    for kind, text in wrong:
        again = f"python -m stress parts=serve serve_seconds={seconds} serve_clients={clients} seed={seed}"
        findings.add(Finding("serve", kind, "serve", text.splitlines()[-1], f"{text}\n{log[-2000:]}", again))
    for row in rows:
        say(f"  serve {row.kind}: {row.tried} tried, {row.findings} failed; {row.note}")
    return rows


def _under_load(
    server: ServerProcess, sound: list[Request], seed: int, seconds: int, clients: int
) -> list[tuple[Counted, str]]:
    """What was counted, each with its note."""
    ended, begin = threading.Event(), time.monotonic()
    load = [Counted(f"{clients} clients") for _ in range(clients)]
    hostile = [Counted(kind) for kind in ATTACKS]
    with ThreadPoolExecutor(clients + len(ATTACKS)) as pool:
        work = [
            pool.submit(_ask, server, sound, Random(f"serve/{seed}/{number}"), ended, each)
            for number, each in enumerate(load)
        ]
        work += [pool.submit(_attack, server, sound, Random(f"{seed}/{each.kind}"), ended, each) for each in hostile]
        try:
            reload = Counted("reload under load")
            for share in (1 / 8, 1 / 4, 1 / 2):
                early = server.metrics()  # before the last one: the first two take what the allocator keeps
                time.sleep(max(0.0, begin + seconds * share - time.monotonic()))
                _reload(server, reload)
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
            late = server.metrics()
        finally:
            ended.set()
        for each in work:
            each.result()
    together = _together(load, early, late)
    shutdown = _shutdown(server, sound, clients)
    ends = {"malformed": "malformed", "killed in mid-request": "gone"}
    notes = {kind: f"{late[labelled('bac_requests_total', outcome=end)]:.0f} {end}" for kind, end in ends.items()}
    return [
        (together, _figures(together, early, late)),
        *((each, notes.get(each.kind, "")) for each in hostile),
        (
            reload,
            f"SIGHUP; the old weights act until the new ones are verified, {reload.seconds / reload.tried:.1f} s each",
        ),
        (shutdown, "requests in flight, then SIGTERM"),
    ]


def _ask(server: ServerProcess, sound: list[Request], random: Random, ended: threading.Event, own: Counted) -> None:
    begin = time.monotonic()
    try:
        with server.connect() as client:
            while not ended.is_set():
                request = random.choice(sound)
                started = time.perf_counter()
                client.send(request.message)
                answer = client.recv(timeout=END)
                own.milliseconds.append((time.perf_counter() - started) * 1e3)
                own.tried += 1
                if (problem := problem_of(answer, request)) is not None:
                    own.problems.append(problem)
    except Exception:
        own.tried += 1
        own.problems.append(traceback.format_exc())
    own.seconds = time.monotonic() - begin


def _attack(server: ServerProcess, sound: list[Request], random: Random, ended: threading.Event, own: Counted) -> None:
    begin = time.monotonic()
    while not ended.wait(PAUSE):
        own.tried += 1
        try:
            problem = ATTACKS[own.kind](server, sound, random)
        except Exception:
            problem = traceback.format_exc()
        if problem is not None:
            own.problems.append(problem)
    own.seconds = time.monotonic() - begin


def _together(load: list[Counted], early: dict[str, float], late: dict[str, float]) -> Counted:
    total = Counted(load[0].kind, seconds=max(each.seconds for each in load))
    for each in load:
        total.tried += each.tried
        total.problems += each.problems
        total.milliseconds += each.milliseconds
    memory = "process_resident_memory_bytes"
    if late[memory] - early[memory] > GROWTH:
        total.problems.append(f"resident memory grew from {early[memory]:.0f} to {late[memory]:.0f} bytes")
    return total


def _figures(load: Counted, early: dict[str, float], late: dict[str, float]) -> str:
    def quantiles(name: str) -> str:
        return ", ".join(f"{1e3 * late[labelled(name, quantile=share)]:.1f}" for share in ("0.5", "0.95", "0.99"))

    memory = "process_resident_memory_bytes"
    chunk, request = quantiles("bac_chunk_seconds"), quantiles("bac_request_seconds")
    return (
        f"{load.tried / load.seconds:.0f} requests per s; p50, p95, p99 of a chunk {chunk} ms, of a request {request} "
        f"ms, the longest at a client {max(load.milliseconds):.0f} ms; resident memory {early[memory] / 1e6:.0f} MB "
        f"after two reloads, {late[memory] / 1e6:.0f} MB at the end"
    )


def _reload(server: ServerProcess, counted: Counted) -> None:
    begin = time.monotonic()
    counted.tried += 1
    server.signal(signal.SIGHUP)
    try:
        server.said(f"(?s)(?:reloaded in.*){{{counted.tried}}}(hash)", RELOAD)
    except RuntimeError as error:
        counted.problems.append(str(error))
    counted.seconds += time.monotonic() - begin


def _shutdown(server: ServerProcess, sound: list[Request], clients: int) -> Counted:
    """Every client has a request on its way when SIGTERM comes, and gets its answer."""
    counted, begin = Counted("shutdown", tried=clients), time.monotonic()
    connections = [server.connect() for _ in range(clients)]
    for number, client in enumerate(connections):
        client.send(sound[number % len(sound)].message)
    server.get("/metrics")  # which is read after what was sent before it
    server.signal(signal.SIGTERM)
    for number, client in enumerate(connections):
        problem: str | None = "there is no answer"
        try:
            problem = problem_of(client.recv(timeout=END), sound[number % len(sound)])
            client.recv(timeout=END)
            problem = problem or "the connection goes on"
        except ConnectionClosed:
            if client.close_code != 1001:
                problem = f"closed with {client.close_code}"
        if problem is not None:
            counted.problems.append(problem)
    if (status := server.process.wait(END)) != 0:
        counted.problems.append(f"exit status {status}")
    counted.seconds = time.monotonic() - begin
    return counted
