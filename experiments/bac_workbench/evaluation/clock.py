"""The latency of an evaluation in which the world goes on, where it is measured here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bac.runtime.choose import make_sampler
from bac.schedule import Schedule
from bac_workbench.evaluation.folder import SETTINGS, stored_settings
from bac_workbench.settings.clock import MEASURED, REAL, STOPPED
from bac_workbench.setup.clock import clock_note, giving_chunks, with_clock
from bac_workbench.setup.experiment import Experiment
from bac_workbench.timing.latency import interleaved

MEASURED_CHUNKS = 30


def in_real_time(
    experiment: Experiment, schedule: Schedule | None, output_dir: Path, say: Callable[[str], None]
) -> Experiment:
    """With a measured clock, if the settings ask for one; else the experiment as it is.

    An evaluation that goes on in `output_dir` keeps the times that it began with.

    Raises:
        ConfigError: no chunk is there before the episode ends, or the settings of `output_dir` are damaged.
    """
    settings = experiment.settings
    if settings.eval.clock != REAL or settings.eval.latency_ms != MEASURED:
        return experiment
    stored = {} if settings.overwrite else stored_settings(output_dir / SETTINGS)
    facts = stored.get("clock", STOPPED)
    if isinstance(facts, dict) and facts.get("measured"):
        say(f"{output_dir} goes on with the {len(facts['latency_ms'])} times that were measured when it began")
        timed = with_clock(experiment, facts["latency_ms"])
    else:
        timed = measured(experiment, schedule)
    say(clock_note(timed))
    return timed


def measured(experiment: Experiment, schedule: Schedule | None) -> Experiment:
    """With the times that chunks take on this machine at batch 1.

    The slower the policy, the more actions of a chunk are needed to bridge a delay, and the more tokens are denoised:
    it is timed again until the chunk is long enough for its own time.
    """
    settings, longest = experiment.settings, -1
    timed = with_clock(experiment, [0.0])
    while timed.clock.longest > longest:
        longest = timed.clock.longest
        with giving_chunks(timed):
            tokens = timed.tokens.kept
            sampler = make_sampler(timed.sampler, schedule, settings.runtime, settings.precision, tokens=tokens)
            latencies, _ = interleaved(timed.policy, {MEASURED: sampler}, 1, MEASURED_CHUNKS)
        timed = with_clock(experiment, [round(time, 3) for time in latencies[MEASURED].milliseconds])
    return timed
