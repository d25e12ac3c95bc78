"""What a dashboard shows of each task, in Weights & Biases or on a local page: measures, panels and run sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac_workbench.evaluation.comparison import Comparison, paired, task_folders
from bac_workbench.settings.caches import method_of
from diffusion_policy.common.config import ConfigError

#: run sets: name and colour of a caching method, in the order shown
RUN_SETS = {
    "full": ("Full policy", "#222222"),
    "uniform": ("Uniform", "#0072B2"),
    "bac": ("BAC", "#D55E00"),
    "blockwise_acs": ("Block-wise ACS", "#CC79A7"),
    "unified_acs": ("Unified ACS", "#F0C648"),
    "sacs": ("S-ACS", "#009E73"),
    "tuned": ("Tuned", "#7F3C8D"),
}
OTHERS_COLOUR = "#7F7F7F"


@dataclass(frozen=True)
class Measure:
    """A number of a method.

    Attributes:
        key: in the summary of an evaluation's run in Weights & Biases.
        value: the number and its 95 % interval in a row of a comparison; None where there is none.
    """

    key: str
    title: str
    value: Callable[[Mapping[str, Any]], tuple[float | None, list[float] | None]]


def _success(row: Mapping[str, Any]) -> tuple[float | None, list[float] | None]:
    found = row["success_rate"]
    return (None, None) if found is None else (found["mean"], found["interval_95"])


def _time(name: str) -> Callable[[Mapping[str, Any]], tuple[float | None, None]]:
    return lambda row: (None if row["timing"] is None else row["timing"][name], None)


SCORE = Measure("mean_score", "mean score", lambda row: (row["mean_score"], row["interval_95"]))
SUCCESS = Measure("success_rate", "success rate", _success)
GFLOP = Measure("gflop_per_chunk", "GFLOP per chunk", lambda row: (row["gflop_per_chunk"], None))
SPEEDUP = Measure("speedup", "wall-clock speed-up over the plain policy", _time("speedup"))
MILLISECONDS = Measure("ms_p50", "ms per chunk, batch 1", _time("ms_p50"))


@dataclass(frozen=True)
class Panel:
    """Bars of `y`, grouped by setting, or, with `x`, points of `y` against it.

    Attributes:
        log_x: logarithmic axis of `x`.
    """

    title: str
    y: Measure
    x: Measure | None = None
    log_x: bool = False


PANELS = (
    Panel("Mean score", SCORE),
    Panel("Success rate", SUCCESS),
    Panel("Arithmetic", GFLOP),
    Panel("Wall-clock speed-up", SPEEDUP),
    Panel("Success against time", SUCCESS, MILLISECONDS, log_x=True),
    Panel("Score against arithmetic", SCORE, GFLOP, log_x=True),
)


@dataclass(frozen=True)
class Study:
    """The evaluations of one folder.

    Attributes:
        name: as the folder is called below the one asked for; the task where that folder itself was.
    """

    name: str
    comparison: Comparison

    @property
    def task(self) -> str:
        return self.comparison.facts["task"]

    @property
    def families(self) -> dict[str, list[Mapping[str, Any]]]:
        """Rows by caching method, in the order of `RUN_SETS`."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in self.comparison.rows:
            found.setdefault(method_of(row["method"]), []).append(row)
        known = [name for name in RUN_SETS if name in found]
        return {name: found[name] for name in [*known, *(name for name in found if name not in RUN_SETS)]}

    @property
    def title(self) -> str:
        names = [run_set(name)[0] for name in self.families]
        return f"{self.name}: {', '.join(names)}"


def read_studies(folder: Path, margin: float) -> tuple[list[Study], dict[str, str]]:
    """The evaluations in a folder, or in each below it that holds some; and why others are left out.

    Raises:
        ConfigError: there is nothing that can be compared; the message has every folder's reason.
    """
    studies, skipped = [], {}
    for path in task_folders(folder) or [folder]:
        try:
            comparison = paired(path, margin=margin)
        except ConfigError as error:
            skipped[path.relative_to(folder).as_posix()] = str(error)
            continue
        name = comparison.facts["task"] if path == folder else path.relative_to(folder).as_posix()
        studies.append(Study(name, comparison))
    if not studies:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in skipped.items())
        raise ConfigError(f"{folder} holds nothing that can be compared:\n{reasons}")
    return studies, skipped


def run_set(family: str) -> tuple[str, str]:
    """Name and colour."""
    return RUN_SETS.get(family, (family, OTHERS_COLOUR))


def setting_of(row: Mapping[str, Any]) -> str:
    """What tells the rows of one caching method apart, the same for two methods with the same budget: 's10 (compiled)'.

    Of the full policy, the sampler.
    """
    rest = row["label"].removeprefix(method_of(row["method"])).strip("_ ")
    return rest or row["sampler"]
