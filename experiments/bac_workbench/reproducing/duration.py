"""About how long the missing cells take, from a few chunks of the full policy in its environments."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bac_workbench.evaluation.evaluate import roll_out
from bac_workbench.reproducing.cells import Cell
from bac_workbench.settings.methods import parse_method
from bac_workbench.setup.experiment import Experiment

CHUNKS = 3  # of each environment that are rolled out
LEAST = 0.05  # of the full policy's time, which any method takes


@dataclass(frozen=True)
class Pace:
    """Seconds that a batch of environments takes for a chunk.

    Attributes:
        policy: of them in the full policy.
        environment: of them in the environments.
        chunks: of the longest episode.
        n_envs: episodes at once.
        steps: denoising steps of the full policy.
    """

    policy: float
    environment: float
    chunks: int
    n_envs: int
    steps: int

    def seconds(self, cell: Cell) -> float:
        """Of a cell at most: an episode that succeeds may end before."""
        batches = math.ceil(max(0, cell.n_test - cell.done) / self.n_envs)
        return batches * self.chunks * (self.policy * self.share(cell.method) + self.environment)

    def share(self, method: str) -> float:
        """About which part of the full policy's arithmetic a method takes."""
        parsed = parse_method(method)
        steps = parsed.sampler.get("steps") or self.steps
        if method == "tuned":
            return 0.1
        budget = getattr(parsed.cache, "budget", None) or steps
        return max(LEAST, budget / self.steps)


def pace_of(base: Experiment) -> Pace:
    """Rolls out a few chunks of the full policy; nothing of it is kept.

    Raises:
        UserError: the simulator or the runtime is not there.
    """
    task, settings = base.task, base.settings
    length = task.environment.max_steps
    executed = task.chunking.n_action_steps
    n_envs = settings.eval.n_envs
    short = dataclasses.replace(task.environment, max_steps=min(length, CHUNKS * executed))
    experiment = dataclasses.replace(
        base,
        settings=settings.replace(eval=settings.eval.replace(n_videos=0)),
        simulated=dataclasses.replace(task, environment=short),
    )
    episodes = experiment.task.episodes()
    with tempfile.TemporaryDirectory() as folder:
        _, stats = roll_out(experiment, None, episodes[:n_envs], episodes, Path(folder), None)
    calls = max(1, stats.policy_calls)
    return Pace(stats.policy_s / calls, stats.env_s / calls, math.ceil(length / executed), n_envs, base.steps)


def told(seconds: float) -> str:
    """'40 s', '12 min', '3.5 h'."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
