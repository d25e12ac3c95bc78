"""Settings of calibrate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bac_workbench.settings.evaluation import PolicySettings, profile_problems
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.rules import Problem, Values, device_problems
from bac_workbench.settings.sampler import Sampler, sampler_problems


class Calibrate(PolicySettings):
    launcher: Launcher
    sampler: Sampler

    @property
    def sampler_options(self) -> dict[str, Any]:
        return self.sampler.to_dict()

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from profile_problems(values)
        yield from sampler_problems(values)
        if values("sampler.type") in (None, "checkpoint", "ddpm"):
            yield "sampler", "a calibration moves the timesteps of a sampler of few steps: use sampler=ancestral5"
