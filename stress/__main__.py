"""python -m stress [key=value ...]: see `arguments.HELP` and docs/reliability.md."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

# One thread each, no window, no logging elsewhere; before anything is imported that reads them.
os.environ.update(
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
    SDL_VIDEODRIVER="dummy",
    WANDB_MODE="disabled",
    PYGAME_HIDE_SUPPORT_PROMPT="1",
)

from stress import report
from stress.arguments import Arguments, read
from stress.findings import Findings, Row

MEMORY_FOLDER = Path("/dev/shm")  # files that live for a millisecond need no disk


def main(texts: list[str]) -> int:
    """Exit status: 1 if there is any finding."""
    arguments = read(texts)
    output = arguments.output or Path(tempfile.mkdtemp(prefix="stress-"))
    output.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="stress-", dir=MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None))
    findings, begin = Findings(output / "findings"), time.monotonic()
    try:
        if arguments.again:
            return try_again(arguments, scratch)
        rows = run(arguments, scratch, findings)
        if not rows:
            raise SystemExit(
                f"error: nothing is called {arguments.kinds!r} that could be tried; see python -m stress help"
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = time.monotonic() - begin
    path = report.write(output, rows, findings, vars(arguments), seconds)
    report.show(rows, findings, path, seconds)
    return 1 if findings.all else 0


def run(arguments: Arguments, scratch: Path, findings: Findings) -> list[Row]:
    import torch

    torch.set_num_threads(1)  # before anything is forked
    rows = fuzz(arguments, scratch, findings) if "fuzz" in arguments.parts else []
    rows += jobs(arguments, scratch, findings)
    return rows + (serving(arguments, scratch, findings) if "serve" in arguments.parts else [])


def fuzz(arguments: Arguments, scratch: Path, findings: Findings) -> list[Row]:
    from stress.fuzz import campaign, child, loaders

    kinds = loaders.available(loaders.named(arguments.kinds), say)
    if not kinds:
        return []
    say(
        f"fuzz: {arguments.inputs:,} inputs over {len(kinds)} kinds of files; "
        f"limits {child.MEMORY >> 20} MB and {child.SECONDS} s each"
    )
    return campaign.run(kinds, arguments.inputs, arguments.seed, arguments.jobs, scratch, findings, say)


def jobs(arguments: Arguments, scratch: Path, findings: Findings) -> list[Row]:
    """Kills, races, full disks and the native engine, `jobs` of them at once."""
    from stress import native
    from stress.jobs import campaign, disks, kills, races
    from stress.jobs.kinds import JOBS
    from stress.jobs.launch import Launcher
    from stress.workers import spread

    parts = set(arguments.parts)
    tasks = native.tasks(arguments.seed, arguments.damages, scratch, say) if "native" in parts else []
    if not parts & {"kills", "races", "disks"}:
        return spread(tasks, arguments.jobs, scratch, findings)
    launcher, chosen = Launcher(scratch, arguments.forked), campaign.chosen(JOBS, arguments.kinds, say)
    with campaign.inputs_of(scratch) as inputs:

        def add(part: str, attempt: campaign.Try, trials: int, what: str) -> None:
            if part in parts:
                say(f"{part}: {trials} of each of {len(chosen)} kinds of jobs: {what}")
                tasks.extend(
                    campaign.tasks(part, attempt, trials, chosen, launcher, arguments.seed, scratch, inputs, say)
                )

        add(
            "kills",
            kills.kill,
            arguments.kills,
            "SIGKILL at random moments, then again to the end, compared with an undisturbed run",
        )
        add("races", races.race, arguments.races, "two processes on one folder, the second after a random moment")
        mounted = "disks" in parts and disks.can_mount(scratch / "probe")
        how = (
            "a small file system"
            if mounted
            else "no file system may be mounted here, so a limit of file size stands in for it,"
        )
        add(
            "disks",
            disks.fill if mounted else disks.limit,
            arguments.disks,
            f"{how} full at a random point, then again with room",
        )
        return spread(tasks, arguments.jobs, scratch, findings)


def serving(arguments: Arguments, scratch: Path, findings: Findings) -> list[Row]:
    try:
        from stress.serving import campaign
    except ModuleNotFoundError as error:
        say(f"not tried: serve, as {error.name} is not installed (the extra serve)")
        return []
    return campaign.run(arguments.seed, arguments.serve_seconds, arguments.serve_clients, scratch, findings, say)


def try_again(arguments: Arguments, scratch: Path) -> int:
    from stress.fuzz import campaign, loaders

    kind = next((kind for kind in loaders.KINDS if kind.name == arguments.again), None)
    if kind is None or arguments.index < 0:
        raise SystemExit(f"error: again= needs index= and one of {', '.join(kind.name for kind in loaders.KINDS)}")
    campaign.again(kind, arguments.seed, arguments.index, scratch)
    print("it was read without an error")
    return 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
