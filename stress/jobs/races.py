"""Two processes of one job on one folder: one works, the other says so and leaves; the result is that of a lone run."""

from __future__ import annotations

import re
import shutil
from random import Random

from stress.jobs.campaign import Stage
from stress.jobs.checks import Trial, compared, left_running, one_screen

BUSY = re.compile(r"is in use by another process")


def race(stage: Stage, trial: Trial, number: int, rng: Random) -> None:
    """The second starts at once, soon after the first, or at any time while it runs."""
    folder, job = stage.folder / str(number) / "run", stage.job
    folder.mkdir(parents=True)
    first = stage.start(folder)
    first.run_for(rng.choice((0.0, rng.uniform(0, 0.3), rng.uniform(0, stage.seconds))))
    both = first, stage.start(folder)
    for process in both:
        process.wait()
    failed = [process for process in both if process.status != 0]
    problems = ["neither of the two finished"] if len(failed) == 2 else []
    for process in failed:
        if not BUSY.search(process.text()) and not job.is_done(process):
            problems.append(f"one of the two fails for another reason (exit {process.status})")
        problems += one_screen(process)
    for process in both:
        problems += left_running(process)
    trial.notes.append(("one after the other", "refused", "failed")[len(failed)])
    trial.judge(number, problems + compared(job, folder, stage.expected), failed[0] if failed else both[1])
    shutil.rmtree(folder.parent, ignore_errors=True)
