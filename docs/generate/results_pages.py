"""docs/results/*.md: a page per task, an overview and the timings, all from the stored result files."""

from __future__ import annotations

import re
from pathlib import Path

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting import tables
from bac_workbench.reporting.names import ALL_TOKENS, TITLES, label, split_key
from bac_workbench.reporting.stored import TaskResults
from bac_workbench.reporting.tables import OVERVIEW, OVERVIEW_NAMES, difference, estimate, methods_table, score
from docs.generate import frontier
from docs.generate.claims_page import claims_page
from docs.generate.flow_page import flow_page
from docs.generate.latency_page import latency_page
from docs.generate.speed_page import speed_page
from docs.generate.stored import MARK, RESULTS, read_frontier, read_task, wrapped

NOTES = Path(__file__).parent / "notes"
PLACEHOLDER = re.compile(r"\{(\w+)((?::[^{}:]+)*)\}")


# ---- one task ----
def value(results: TaskResults, name: str, *arguments: str) -> str:
    """What a placeholder of a note stands for, such as {score:bac_s10} or {ms:full@ddim10:compiled}."""
    if name == "metric":
        metric, key = arguments
        stored = results.row(key)["metrics"][metric]
        return estimate(stored["mean"], stored["interval_95"], 2)
    key = arguments[0]
    if name in ("ms", "encoder_ms", "speedup"):
        runtime = arguments[1]
        if name == "ms":
            return f"{results.benchmark.milliseconds(key, runtime):.1f}"
        if name == "encoder_ms":
            return f"{results.benchmark.row(key, runtime)['encoder_ms_p50']:.1f}"
        return f"{results.benchmark.speedup(key, runtime):.2f}"
    row = results.row(key)
    if name == "updates":
        return str(row["block_updates"])
    if name == "gflop":
        return f"{row['gflop_per_chunk']:.2f}"
    if name == "score":
        return f"{row['mean_score']:.3f}"
    if name == "scored":
        return score(results, row)
    if name == "difference":
        return difference(row)
    if name == "loss":
        paired = row["paired_difference"]
        return f"{-paired['mean']:.3f} [{-paired['high']:.3f}, {-paired['low']:.3f}]"
    raise KeyError(f"a note asks for {name}, which no result has")


def filled(text: str, results: TaskResults) -> str:
    """`text` with its placeholders replaced by stored numbers."""
    return PLACEHOLDER.sub(lambda match: value(results, match[1], *match[2].split(":")[1:]), text)


def task_page(task: str) -> str:
    """The frontier of a task, below a table of more settings over one noise seed where there is one."""
    fastest, settings = read_frontier(task), read_task(task)
    parts = [f"# {fastest.title}"]
    if settings is not None:
        tables = [markdown(methods_table(settings)).strip(), *conditions(settings)]
        parts += [with_tables(task, settings, tables)]
    parts += [with_tables(task if settings is None else f"{task}_frontier", fastest, frontier.section(task))]
    picture = f"![{fastest.score_name} of each method against what it costs](../figures/{task}.png)"
    files = "\n".join(f"- [`{path.name}`]({path.name})" for path in sorted(RESULTS.glob(f"{task}_*.json")))
    reference = fastest.reference
    facts = (
        f"Checkpoint {reference['checkpoint_hash'][:12]} ({reference['weights'].upper()} weights), evaluated at commit "
        f"{reference['commit'][:12]} on: {reference['hardware']}."
    )
    parts += [picture, "## Stored files", facts, files]
    return f"{MARK}\n" + wrapped("\n\n".join(parts)) + "\n"


def with_tables(note: str, results: TaskResults, tables: list[str]) -> str:
    """A note with its numbers and tables."""
    text = filled((NOTES / f"{note}.md").read_text(encoding="utf-8"), results).strip()
    return text.replace("<!-- table -->", "\n\n".join(tables))


def conditions(results: TaskResults) -> list[str]:
    """Paragraphs below the table: what the numbers were measured on."""
    reference, timed = results.reference, results.benchmark
    episodes = (
        f"{results.rows[0]['n_episodes']} test seeds from {reference['test_seeds_from']}; the same initial states and "
        f"the same noise (seed {reference['seed']}) for every method. GFLOP count the tokens that reach the executed "
        "actions. A *block update* is one computation of one block; see [concepts](../concepts.md)."
    )
    if timed is None:
        return [episodes]
    executed = timed.row(ALL_TOKENS, "reference") is not None
    times = (
        f"Times: batch 1, {'executed' if executed else 'all'} tokens, {timed.machine}. The speed-up is against the "
        f"full policy in the same, compiled runtime; the runtime alone makes the full policy"
        f"{' (all tokens)' if executed else ''} {timed.runtime_gain('compiled'):.2f}x faster than the reference "
        "runtime."
    )
    return [episodes, times]


# ---- all tasks ----
def verdict(tasks: list[TaskResults]) -> str:
    """How BAC at the paper's budget compares with the full policy and with DDIM-16, counted over the tasks."""
    below = [r for r in tasks if r.row("bac_s10")["paired_difference"]["mean"] < 0]
    worse = [r for r in below if r.row("bac_s10")["mean_score"] < r.row("full@ddim16")["mean_score"]]
    cheaper = [r for r in tasks if r.row("full@ddim16")["gflop_per_chunk"] < r.row("bac_s10")["gflop_per_chunk"]]
    spared = [r.title for r in tasks if r not in below]
    counted = f"all {len(below)}" if len(worse) == len(below) else f"{len(worse)}"
    fewer = f"all {len(tasks)}" if len(cheaper) == len(tasks) else f"{len(cheaper)} of the {len(tasks)}"
    return (
        f"At budget 10 BAC scores below the full policy on {len(below)} of {len(tasks)} bundled policies (not on "
        f"{', '.join(spared)}). DDIM-16 scores higher than BAC on {counted} of these, and it needs "
        f"fewer FLOPs on {fewer}."
    )


def bold_text() -> str:
    """What the overview's bold type means, and what its last column is."""
    return (
        f"Bold: shown, one-sided at level 0.05, to be worse by less than {frontier.margin_of_all():g}. Ancestral-5 "
        "runs the denoiser 5 times instead of 100, with noise that follows the full policy's own."
    )


def index_page() -> str:
    tasks = frontier.stored()
    links = {results.task: f"[{results.title}]({results.task}.md)" for results in tasks}
    keys = ("full", *OVERVIEW)
    names = [label(*split_key("full")), *(OVERVIEW_NAMES[key] for key in OVERVIEW)]
    costs = [[links[results.task], *(value(results, "gflop", key) for key in keys)] for results in tasks]
    settings = next(found for found in map(read_task, TITLES) if found is not None)
    few = settings.rows[0]["n_episodes"]
    return f"""{MARK}
# Results

Every number of these pages comes from a stored result file of this folder, with commit, versions and machine. Methods
are compared on the same initial states and the same noise. Intervals are 95 %.

Score, or success rate for Lift and Can, and the paired differences to the full policy:

{markdown(tables.overview(tasks, lambda results: links[results.task])).strip()}

{wrapped(bold_text())}

Arithmetic of the denoiser, GFLOP per action chunk, of the tokens that reach the executed actions:

{markdown((["task", *names], costs)).strip()}

{wrapped(verdict(tasks))}

- The bundled policies are small and, but for Push-T, learned from scripted demonstrations. The tables rank methods on
  these policies.
- [{settings.title}]({settings.task}.md) has more budgets, over one noise seed and {few} episodes.
- [Speed](speed.md) compares the runtimes on four machines, and with other inference engines.
- [What speed is worth in score](latency.md), where the world goes on while the policy computes.
- [Caching in flow matching](flow.md): schedules of ten steps beside fewer steps.
- [The paper's claims](claims.md), one by one, tested on every bundled policy.
"""


def pages() -> dict[Path, str]:
    """Path -> content of every generated page about results."""
    written = {RESULTS / f"{task}.md": task_page(task) for task in TITLES}
    overall = {
        "index": index_page,
        "speed": speed_page,
        "claims": claims_page,
        "latency": latency_page,
        "flow": flow_page,
    }
    return {**written, **{RESULTS / f"{name}.md": page() for name, page in overall.items()}}
