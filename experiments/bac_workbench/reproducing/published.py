"""Table 1 and Table 2 of the BAC paper (arXiv 2506.13456): tasks, columns, and the numbers as printed there.

Only what is known of them is here; what is not stays empty in our tables, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

#: budget of the ablation, and of the method's own row
BUDGET = 10
PH, MH, MULTI_STAGE, OWN = "ph", "mh", "multi_stage", "own"
GROUPS = MappingProxyType(
    {
        PH: ("lift_ph", "can_ph", "square_ph", "transport_ph", "tool_hang_ph", "pusht_image", "pusht_lowdim"),
        MH: ("lift_mh", "can_mh", "square_mh", "transport_mh"),
        MULTI_STAGE: ("block_pushing", "kitchen_lowdim_abs", "kitchen_lowdim"),
    }
)
HEADINGS = MappingProxyType(
    {
        PH: "Proficient-human demonstrations",
        MH: "Mixed-human demonstrations",
        MULTI_STAGE: "Multi-stage tasks",
        OWN: "Policies of this project and others that are not the paper's",
    }
)
#: what a multi-stage task is reported by: the share of episodes that complete at least so many stages
STAGES = MappingProxyType({"block_pushing": ("p1", "p2"), "kitchen": ("p1", "p2", "p3", "p4")})


@dataclass(frozen=True)
class Printed:
    """A row of the paper.

    Attributes:
        name: of the row there.
        scores: task -> success of the best checkpoint and of the last ones.
        means: group -> mean over its tasks.
        gflop: of a chunk; None: not known.
        speedup: group -> wall-clock against full precision.
    """

    name: str
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    gflop: float | None = None
    speedup: dict[str, float] = field(default_factory=dict)


#: method here -> the paper's row; its fastest Uniform has a budget that it does not name
TABLE_1 = MappingProxyType(
    {
        "full": Printed(
            "full precision",
            {"square_ph": (0.82, 0.88), "transport_ph": (0.78, 0.81), "tool_hang_ph": (0.43, 0.53)},
            {PH: 0.76, MH: 0.76, MULTI_STAGE: 0.98},
            15.77,
            dict.fromkeys((PH, MH, MULTI_STAGE), 1.0),
        ),
        "uniform": Printed(
            "Uniform, the fastest",
            {"square_ph": (0.73, 0.83), "transport_ph": (0.73, 0.78), "tool_hang_ph": (0.23, 0.64)},
            {PH: 0.76},
            2.72,
            {PH: 3.2},
        ),
        f"bac_s{BUDGET}": Printed(
            f"BAC, S={BUDGET}",
            {"square_ph": (0.82, 0.89), "transport_ph": (0.77, 0.82), "tool_hang_ph": (0.49, 0.55)},
            {PH: 0.79, MH: 0.77, MULTI_STAGE: 0.98},
            2.66,
            {PH: 3.4, MULTI_STAGE: 3.6},
        ),
    }
)
TABLE_2 = MappingProxyType(
    {
        f"uniform_s{BUDGET}": Printed("Uniform", means={PH: 0.65}),
        f"unified_acs_s{BUDGET}": Printed("Unified ACS", means={PH: 0.72}),
        f"blockwise_acs_s{BUDGET}": Printed("Block-wise ACS", {"tool_hang_ph": (0.03, 0.05)}, {PH: 0.65}),
        f"bac_s{BUDGET}": Printed("BAC (+BUA)", means={PH: 0.79}),
    }
)


def group_of(task: str, published: bool) -> str:
    """The group of a task's column; `published`: the policy is one of the trainings that the paper evaluates."""
    return next((name for name, tasks in GROUPS.items() if published and task in tasks), OWN)


def stages_of(task: str) -> tuple[str, ...]:
    """The metrics that a task has a column for each of; empty: its score."""
    return next((stages for name, stages in STAGES.items() if task.startswith(name)), ())
