"""Settings of check, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from bac_workbench.settings.evaluation import ActingSettings
from bac_workbench.settings.kinds import Boolean, Count, CountOrZero, Kind, Positive, Section, Share, integer, nullable
from bac_workbench.settings.recordings import RecordingSettings, recording_problems
from bac_workbench.settings.rules import Problem, Values
from bac_workbench.settings.task import PathOrNull

_Bound = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: of the action's dimensions: one number for all of them, or one for each
Bounds = Annotated[
    _Bound | list[_Bound] | None,
    Kind("a number above 0, a list with one for each dimension of the action, or null", null=True),
]


class Limits(Section):
    """What must not be exceeded; None: not limited."""

    error: Bounds
    error_ratio: nullable(Positive)
    bias: Bounds
    energy: nullable(Positive)
    jitter: nullable(Positive)
    p99_ms: nullable(Positive)
    missed: nullable(Share)


class CheckTimes(Section):
    n_chunks: Count
    warmup: CountOrZero


class Check(RecordingSettings, ActingSettings):
    schedule: PathOrNull
    n_states: integer(2, 100_000)
    n_samples: integer(2, 10_000)
    ddim: Boolean
    deadline_ms: nullable(Positive)
    timing: CheckTimes
    limits: Limits
    output_dir: PathOrNull

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from ActingSettings.rules(values)
        yield from recording_problems(values)
        if values("observations") is None:
            yield (
                "observations",
                "name recorded observations to judge on: an .hdf5 file, a .zarr folder, lerobot:<folder> or an .npz "
                "file of windows (with a simulator, bac collect records some)",
            )
        if values("schedule") is not None and values("cache.method") not in (None, "full"):
            yield "schedule", "this file says which blocks compute: leave cache= out"
        if values("limits.missed") is not None and values("deadline_ms") is None:
            yield "limits.missed", "it is a share of calls that miss a deadline: add deadline_ms="
