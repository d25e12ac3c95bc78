"""Settings of benchmark, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from bac_workbench.settings.evaluation import method_problems, profile_problems
from bac_workbench.settings.kinds import Boolean, Count, CountOrZero, Kind, NoiseSeed, Path, Text, list_of
from bac_workbench.settings.recordings import RecordingSettings, recording_problems
from bac_workbench.settings.rules import Problem, Values, device_problems, precision_problems
from bac_workbench.settings.task import ActingHorizon, Precision, Runtime, Wandb

Batch = Annotated[
    Count | list_of(Count, "[1,28]"),
    Kind("a whole number from 1 to 1,000,000, or a list of them without repeats such as [1,28]"),
]


class Benchmark(RecordingSettings):
    methods: list_of(Text, "[full,bac_s10]")
    runtimes: list_of(Runtime, "[reference,planned]")
    batch: Batch
    n_chunks: Count
    warmup: CountOrZero
    precision: Precision
    horizon: ActingHorizon
    seed: NoiseSeed
    output_dir: Path
    trace: Boolean
    wandb: Wandb

    @property
    def batches(self) -> list[int]:
        """Batch sizes, in the order measured."""
        return self.batch if isinstance(self.batch, list) else [self.batch]

    @property
    def chosen_horizon(self) -> str:
        return self.horizon

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        if values("sampler") is not None:
            yield "sampler", "the benchmark takes samplers in its methods, such as methods=[full@ddim16]"
        # The reference runtime always computes in fp32: it is what the others are compared with.
        yield from precision_problems(
            values, [runtime for runtime in values("runtimes") or () if runtime != "reference"]
        )
        yield from profile_problems(values)
        yield from recording_problems(values)
        yield from method_problems("methods", values("methods"), None)
