"""SIGKILL at random moments: the same command again ends with the result of an undisturbed run."""
from __future__ import annotations

import shutil
from random import Random

from stress.jobs.campaign import Stage
from stress.jobs.checks import Trial, compared, half_made, left_running


def kill(stage: Stage, trial: Trial, number: int, rng: Random) -> None:
    """Kills once or twice, with the processes that were started or without them, then runs to the end."""
    folder, job = stage.folder / str(number) / "run", stage.job
    folder.mkdir(parents=True)
    problems: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        process = stage.start(folder)
        process.run_for(rng.uniform(0.02, 0.95) * stage.seconds)
        process.kill(whole_group=rng.random() < 0.5)
        process.wait()
        trial.notes.append("killed" if process.status == -9 else "ended before")
        problems += left_running(process) + half_made(folder)
    process = stage.start(folder)
    if process.wait() != 0 and not job.is_done(process):
        problems.append(f"the same command again fails (exit {process.status})")
    problems += left_running(process)
    trial.judge(number, problems + compared(job, folder, stage.expected), process)
    shutil.rmtree(folder.parent, ignore_errors=True)
