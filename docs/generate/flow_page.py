"""docs/results/flow.md: caching in a policy of flow matching, from a stored comparison."""

from __future__ import annotations

from typing import Any

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import OWN_SAMPLER, label, solver_label
from bac_workbench.reporting.stored import TaskResults, read_results
from bac_workbench.reporting.tables import difference, estimate, margin_of, verdict_text
from docs.generate.stored import MARK, RESULTS, wrapped

TASK, KIND = "pusht_lowdim", "flow"
INTRODUCTION = """Policies of flow matching, as vision-language-action models have, denoise in about ten steps, not a
hundred: is there anything left to cache? A small policy, trained here on Push-T, samples with {solver}
(`checkpoint/pusht_lowdim/flow10`). Schedules of its ten steps stand beside fewer steps, in the order of what they
compute."""
COMMANDS = """```bash
bac train task=pusht_lowdim objective=flow task.policy.model.n_layer=4 training.max_steps=6000
bac eval task=pusht_lowdim checkpoint=checkpoint/pusht_lowdim/flow10 cache=sacs cache.budget=5 runtime=compiled
bac eval task=pusht_lowdim checkpoint=checkpoint/pusht_lowdim/flow10 cache=full sampler.steps=5 runtime=compiled
```

`shs/flow.sh` makes the table again; [stored data](pusht_lowdim_flow.json)."""


def flow_page() -> str:
    results = read_results(RESULTS, TASK, KIND)
    if results is None:
        raise FileNotFoundError(RESULTS / f"{TASK}_{KIND}.json")
    own = results.reference["checkpoint_sampler"]
    introduction = INTRODUCTION.format(solver=solver_label(own))
    parts = ["# Caching in flow matching", introduction, table(results, own), cheapest(results, own)]
    parts += [conditions(results), COMMANDS]
    return f"{MARK}\n" + wrapped("\n\n".join(parts)) + "\n"


def name_of(method: str, sampler: str, own: str) -> str:
    if method == "full":
        return f"full policy ({solver_label(own)})" if sampler == own else solver_label(sampler)
    return label(method, OWN_SAMPLER if sampler == own else sampler)


def table(results: TaskResults, own: str) -> str:
    """A row per method, the dearest first."""
    columns = [
        "method", "score [95 %]", "paired difference to full [95 %]", f"not worse by {margin_of(results):g}",
        "block updates", "GFLOP per chunk", "ms per chunk",
    ]  # fmt: skip
    timed = results.benchmark
    rows = [
        [
            name_of(row["method"], row["sampler"], own),
            estimate(row["mean_score"], row["interval_95"], 3),
            difference(row),
            verdict_text(row),
            str(row["block_updates"]),
            f"{row['gflop_per_chunk']:.2f}",
            "-" if (found := timed.row(key(row), "compiled")) is None else f"{found['ms_p50']:.1f}",
        ]
        for row in sorted(results.rows, key=lambda row: -row["gflop_per_chunk"])
    ]
    return markdown((columns, rows)).strip()


def key(row: dict[str, Any]) -> str:
    return f"{row['method']}@{row['sampler']}"


def cheapest(results: TaskResults, own: str) -> str:
    """What computes least of what is shown to be not worse, among schedules and among fewer steps."""
    shown = [row for row in results.rows if row["noninferiority"] and verdict_text(row) == "shown"]
    words = []
    for kind, rows in (
        ("schedule", [row for row in shown if row["sampler"] == own and row["method"] != "full"]),
        ("sampler with fewer steps", [row for row in shown if row["sampler"] != own]),
    ):
        least = min(rows, key=lambda row: row["gflop_per_chunk"], default=None)
        words.append(
            f"no {kind} is shown to be not worse"
            if least is None
            else f"the {kind} that computes least is {name_of(least['method'], least['sampler'], own)}, with "
            f"{least['gflop_per_chunk']:.2f} GFLOP"
        )
    return (
        f"Among what is shown to be not worse by that margin, {words[0]}, and {words[1]}. Intervals of methods beside "
        "each other overlap."
    )


def conditions(results: TaskResults) -> str:
    reference, row = results.reference, results.rows[0]
    return (
        f"{row['n_episodes']} episodes per method: {row['n_episodes'] // len(reference['seeds'])} initial states from "
        f"seed {reference['test_seeds_from']} with {len(reference['seeds'])} noise seeds, the same for every method; "
        f"`runtime={reference['runtime']}`, {reference['hardware']}, commit {reference['commit'][:12]}. Arithmetic is "
        f"that of the tokens that reach the executed actions. Times: batch 1, {results.benchmark.machine}."
    )
