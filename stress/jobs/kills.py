"""SIGKILL at random moments: the same command again ends with the result of an undisturbed run."""

from __future__ import annotations

import shutil
from random import Random

from stress.jobs.campaign import Stage
from stress.jobs.checks import Trial, compared, half_made, left_running

STARTS = 10  # after which a run that always ends first counts as it is


def kill(stage: Stage, trial: Trial, number: int, rng: Random) -> None:
    """Kills once or twice, with the processes that were started or without them, then runs to the end.

    A run that ends before its kill is no trial: it starts anew, with what it took as the time to choose from.
    """
    folder, job = stage.folder / str(number) / "run", stage.job
    folder.mkdir(parents=True)
    problems: list[str] = []
    for again in range(rng.choice((1, 1, 1, 2))):
        seconds = stage.seconds
        for _ in range(STARTS):
            process = stage.start(folder)
            process.run_for(rng.uniform(0.02, 0.95) * seconds)
            process.kill(whole_group=rng.random() < 0.5)
            process.wait()
            if process.status == -9 or again:  # what goes on after a kill may well be over soon
                break
            seconds = min(seconds, process.seconds)
            shutil.rmtree(folder)
            folder.mkdir()
        trial.notes.append("kills" if process.status == -9 else "ended before")
        problems += left_running(process) + half_made(folder)
    process = stage.start(folder)
    if process.wait() != 0 and not job.is_done(process):
        problems.append(f"the same command again fails (exit {process.status})")
    problems += left_running(process)
    trial.judge(number, problems + compared(job, folder, stage.expected), process)
    shutil.rmtree(folder.parent, ignore_errors=True)
