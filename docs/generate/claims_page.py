"""docs/results/claims.md: the claims of BAC's paper, one by one, on every bundled policy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from bac.blocks import KIND_TITLES, parse
from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.figures.numbers import relative_errors
from bac_workbench.reporting.names import TITLES
from bac_workbench.reporting.stored import TaskResults
from docs.generate.claims import ABSENT, SCORED, Claim
from docs.generate.frontier import margin_of_all, stored
from docs.generate.stored import DOCS, MARK, RESULTS, wrapped

INTRODUCTION = """\
The paper (arXiv 2506.13456, ICLR 2026) measured other policies: DP-T with the original project's training on human
demonstrations, 50 episodes per checkpoint. Here each claim is tested on the bundled policies, with paired episodes. A
claim *holds* or *does not hold* where an interval or a test says so, and is *open* where it does not. That a claim
does not hold for these policies does not make the paper's numbers wrong; it says what to check for your own."""


def claims_page() -> str:
    """The whole page."""
    tasks = stored()
    parts = ["# The paper's claims, one by one", INTRODUCTION, conditions(tasks), overview(tasks)]
    for number, claim in enumerate(SCORED, start=1):
        parts += section(number, claim, tasks)
    parts += surge(len(SCORED) + 1)
    parts += stability(len(SCORED) + 2)
    return f"{MARK}\n" + wrapped("\n\n".join(part for part in parts if part)) + "\n"


def conditions(tasks: list[TaskResults]) -> str:
    pairs = [f"{task.title} {task.row('bac_s10')['n_episodes']}" for task in tasks]
    return (
        f"Pairs of episodes: {', '.join(pairs)}; the same initial states and the same noise for every method. "
        f"*Not worse* and *collapses* "
        f"are tests at a margin of {margin_of_all():g}, one-sided at level 0.05; all other differences have 95 "
        f"% intervals, in "
        "which a state counts once whatever the number of noise seeds."
    )


def overview(tasks: list[TaskResults]) -> str:
    rows = []
    for number, claim in enumerate(SCORED, start=1):
        rows.append(
            [f"[{number}](#{anchor(number, claim)})", claim.title, *(claim.test(task).verdict for task in tasks)]
        )
    return markdown((["", "claim", *(task.title for task in tasks)], rows)).strip()


def anchor(number: int, claim: Claim) -> str:
    words = "".join(character for character in claim.title.lower() if character.isalnum() or character in " -")
    return f"{number}-{words.replace(' ', '-')}"


def section(number: int, claim: Claim, tasks: list[TaskResults]) -> list[str]:
    rows = []
    for task in tasks:
        found = claim.test(task)
        rows.append([f"[{task.title}]({task.task}.md)", found.number, str(found.pairs or ABSENT), found.verdict])
    table = markdown((["task", claim.measure, "pairs", "verdict"], rows)).strip()
    return [
        f"## {number} {claim.title}",
        f"Paper: {claim.paper}.",
        table,
        f"`{claim.command}` makes the numbers again.",
    ]


# ---- what is not a score ----
def surge(number: int) -> list[str]:
    """Where errors are, by kind of block, under block-wise ACS without repair and under BAC."""
    heading = f"## {number} The error surge sits in the feed-forward networks"
    columns = [
        "task",
        "schedule",
        *(KIND_TITLES[kind] for kind in ("sa", "ca", "ffn")),
        "in the last tenth of the steps",
    ]
    rows = []
    for task in TITLES:
        found = read_figures(task)
        if found is None:
            continue
        arrays, blocks = found
        kinds = np.array([parse(str(block)).kind for block in blocks])
        for schedule, name in (("blockwise_acs", "block-wise ACS"), ("bac", "BAC")):
            errors = relative_errors(arrays[f"errors|{schedule}"], arrays["sizes"])
            cells = [f"{np.nanmean(errors[:, kinds == kind]):.2f}" for kind in ("sa", "ca", "ffn")]
            last = errors[-len(errors) // 10 :]
            rows.append([TITLES[task], name, *cells, f"feed-forward {np.nanmean(last[:, kinds == 'ffn']):.2f}"])
    if not rows:
        return []
    text = (
        "Paper: errors of feed-forward networks grow towards the end of the chain when they refresh on stale "
        "inputs, and the "
        "Bubbling Union prevents it. Below: the mean error of a block's output as a share of its size, over "
        "all steps, at budget 10."
    )
    return [
        heading,
        text,
        markdown((columns, rows)).strip(),
        "`bac figures task=kitchen_scripted_demos`, or another task, makes the numbers again.",
    ]


def read_figures(task: str) -> tuple[Any, Any] | None:
    path = RESULTS / f"{task}_figures" / "figures.npz"
    if not path.exists():
        return None
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, arrays["blocks"]


def stability(number: int) -> list[str]:
    """How far schedules of single chains are from the one of all."""
    parts: list[str] = []
    for task in TITLES:
        path = RESULTS / f"{task}_stability.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        parts += [stability_text(found, TITLES[task]), stability_table(found), stability_verdict(found)]
        if (DOCS / "figures" / f"stability_{task}.png").exists():
            parts.append(f"![how far schedules of single chains are from that of all](../figures/stability_{task}.png)")
    if not parts:
        return []
    text = (
        "Paper: similarity maps hardly differ between episodes, so one observation and one noise seed are "
        "enough. Here every chain was "
        "profiled apart. *Steps apart*: mean distance of ACS's update steps to those of all chains. "
        "*Objective lost*: of what ACS's "
        "optimum has above Uniform. *Error of actions*: against the full policy, on states of further "
        "episodes, in normalised units."
    )
    command = (
        "`bac stability task=pusht_lowdim runtime=compiled rollouts.n_test=100` makes the numbers again, for another "
        "task likewise; without `rollouts.n_test` all but the scores."
    )
    return [f"## {number} One chain is enough to profile a task", text, *parts, command]


def stability_text(found: dict[str, Any], title: str) -> str:
    maps, asked = found["correlations"], found["asked"]
    more = [f"profile.{name}={asked[name]}" for name in ("n_episodes", "n_observations")]
    short = "" if asked["n_episodes"] == 10 else f" (short ones: `{' '.join(more)}`)"
    return (
        f"**{title}**: {found['observations']} observations of {found['episodes']} episodes{short}, "
        f"{len(found['noise_seeds'])} noise seeds. "
        f"The maps of two chains correlate by {maps['noise']['median']:.2f} where the noise alone differs (95 % above "
        f"{maps['noise']['low_5']:.2f}), by {maps['episode']['median']:.2f} where the episode alone differs "
        f"({maps['episode']['low_5']:.2f}), "
        f"and by {maps['all']['median']:.2f} where both do ({maps['all']['low_5']:.2f})."
    )


def stability_table(found: dict[str, Any]) -> str:
    by_size: dict[int, list[dict[str, Any]]] = {}
    for row in found["schedules"]:
        by_size.setdefault(row["observations"] * row["noise_seeds"], []).append(row)
    columns = ["BAC profiled on", "steps apart", "objective lost", "repaired blocks alike", "error of actions"]
    scored = "scores" in found
    rows = []
    for size, own in sorted(by_size.items()):
        cells = [f"{size} chain{'s' if size > 1 else ''}" + (f", {len(own)} draws" if len(own) > 1 else "")]
        cells += [
            f"{np.mean([row['displacement'] for row in own]):.1f}",
            f"{100 * np.mean([row['regret'] for row in own]):.0f} %",
        ]
        cells += [f"{np.mean([row['repaired'] for row in own]):.1f} of {found['top_k']}"]
        cells += [spread([row["action_error"] for row in own])]
        if scored:
            cells += [spread([found["scores"]["by_schedule"][row["name"]]["mean"] for row in own])]
        rows.append(cells)
    if scored:
        columns.append(f"mean score, {found['scores']['episodes']} episodes each")
    return markdown((columns, rows)).strip()


def stability_verdict(found: dict[str, Any]) -> str:
    """Whether every draw of a single chain is as good as all chains, by the paired intervals of the scores."""
    if "scores" not in found:
        return ""
    single = [row["name"] for row in found["schedules"] if row["observations"] * row["noise_seeds"] == 1]
    apart = [found["scores"]["by_schedule"][name]["difference"] for name in single]
    worse, better = (sum(high < 0 for _, _, high in apart), sum(low > 0 for _, low, _ in apart))
    verdict = "That one chain is enough **does not hold**." if worse or better else "Whether one is enough stays open."
    return (
        f"Of the {len(single)} schedules from a single chain, those that score lower than that of all chains: {worse}; "
        f"higher: {better} (95 % intervals of paired differences exclude 0). {verdict}"
    )


def spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
