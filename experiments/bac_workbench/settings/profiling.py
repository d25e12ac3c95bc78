"""Settings of profile_blocks, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator

from bac_workbench.settings.evaluation import ProfilingSettings, method_problems
from bac_workbench.settings.kinds import Text, list_of
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.recordings import RecordingSettings, recording_problems
from bac_workbench.settings.rules import Problem, Values
from bac_workbench.settings.task import Wandb


class ProfileBlocks(RecordingSettings, ProfilingSettings):
    launcher: Launcher
    schedules: list_of(Text, "[bac_s10,bac_s7]", empty=True)
    wandb: Wandb

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from ProfilingSettings.rules(values)
        yield from recording_problems(values)
        if values("observations") is not None and values("profile.source") in ("rollouts", "dataset"):
            yield "profile.source", "observations= names what to profile on: use auto, or leave observations out"
        if values("observations") is not None and values("dataset._target_") is not None:
            yield "observations", "dataset= names other observations: leave one of them out"
        yield from method_problems("schedules", values("schedules"), values("sampler.steps"))
