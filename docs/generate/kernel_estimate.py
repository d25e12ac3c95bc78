"""How long the persistent kernel should take: counted parts at assumed times. Nothing here is measured."""

from __future__ import annotations

from bac import Schedule
from bac.blocks import parse
from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.locations import SHIPPED

#: microseconds of a GPU with 132 multiprocessors at 1.7 GHz, the lowest and the highest that is expected
BARRIER = (1.0, 1.5)
WORK = {"sa": (3.0, 4.5), "ca": (1.3, 2.0), "ffn": (2.7, 4.0)}
REUSED, STEP, LAUNCH = (0.12, 0.2), (2.0, 3.0), (25.0, 40.0)  # of a stored output, a step and a chunk
#: milliseconds to reach, by method
TARGETS = {"full policy (DDPM-100)": 8.0, "BAC, budget 10": 2.5, "DDIM-10": 0.9, "ancestral-5": 0.5}
TEXT = """With `BAC_GPU=persistent`, `compiled` at batch 1 is one persistent kernel where the policy fits. **No GPU has
run it yet; what follows is an estimate.** A chunk has counted parts: barriers of all thread blocks (two for each
self-attention and feed-forward network that computes), the work between them, and stored outputs that are read again.
Assumed are {low:g} to {high:g} us for a barrier, and for the work of a self-attention {sa}, a cross-attention {ca} and
a feed-forward network {ffn} us. Shared memory, not arithmetic, rules that work: a thread block reads all activations
(9 KB, 36 KB of hidden units) from the L2 cache and multiplies them with six or eight rows of weights, which takes less
than the waiting. `python -m stress.gpu` measures each of these numbers."""
PARALLEL = """Denoising all steps at once instead (the linear part of the sampler exact, only the estimates of the
clean sample frozen, and repeated until they stay) was looked at for batch 1 and left out. On a CPU the full policy's
executed actions come within 1e-3 of the sequential ones after 8 rounds, not within rounding. A round evaluates 100
times 9 tokens, 14 GFLOP; 8 rounds are 115 GFLOP, about 4 ms at half of an H100's fp32 rate, and more with the rounds
that are missing to rounding. That is no clear gain over one kernel, for actions that are not the same."""


def estimate(schedule: Schedule) -> tuple[int, float, float]:
    """(barriers, lowest and highest milliseconds) of a chunk."""
    computed = dict.fromkeys(WORK, 0)
    for name, count in schedule.updates_per_block.items():
        computed[parse(name).kind] += count
    reused = schedule.updates.size - schedule.update_count
    barriers = 2 * (computed["sa"] + computed["ffn"]) + 3  # three while the condition is encoded
    low, high = (
        LAUNCH[i]
        + barriers * BARRIER[i]
        + reused * REUSED[i]
        + schedule.steps * STEP[i]
        + sum(count * WORK[kind][i] for kind, count in computed.items())
        for i in (0, 1)
    )
    return barriers, low / 1e3, high / 1e3


def kernel_text() -> str:
    """The section of docs/results/speed.md."""
    schedule = Schedule.load(str(SHIPPED / "assets/pusht_lowdim/schedules/bac_s10.json"))
    schedules = {
        "full policy (DDPM-100)": Schedule.full(schedule.blocks, 100),
        "BAC, budget 10": schedule,
        "DDIM-10": Schedule.full(schedule.blocks, 10),
        "ancestral-5": Schedule.full(schedule.blocks, 5),
    }
    rows = []
    for name, one in schedules.items():
        barriers, low, high = estimate(one)
        rows.append([name, str(barriers), f"{low:.1f} to {high:.1f}", f"{TARGETS[name]:g}"])
    named = {kind: f"{low:g} to {high:g}" for kind, (low, high) in WORK.items()}
    text = TEXT.format(low=BARRIER[0], high=BARRIER[1], **named)
    table = markdown((["method", "barriers", "estimated ms of the kernel", "target"], rows)).strip()
    return "\n\n".join([text, table, PARALLEL])
