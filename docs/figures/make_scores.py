"""Draws the score of every method against what it costs, a picture per task: python -m docs.figures.make_scores

From the stored result files alone: milliseconds in the compiled runtime where they were measured, else GFLOP. The
comparison over several noise seeds is drawn where there is one.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from bac_workbench.reporting.names import TITLES, label
from bac_workbench.reporting.stored import TaskResults
from docs.generate.frontier import tuned_key
from docs.generate.stored import read_frontier, read_task

FIGURES = Path(__file__).parent
# of Okabe and Ito's palette, which the colour-blind can tell apart
COLOURS = {
    "full": "#000000",
    "ddim": "#0072b2",
    "uniform": "#8c8c8c",
    "blockwise": "#e69f00",
    "bac": "#d55e00",
    "sacs": "#cc79a7",
    "ancestral": "#009e73",
}
FAMILIES = {
    "ddim": "fewer sampler steps",
    "uniform": "Uniform caching (with its budget)",
    "blockwise": "ACS without repair",
    "bac": "BAC (with its budget)",
    "sacs": "S-ACS, at the FLOPs of BAC with this budget",
    "ancestral": "coupled ancestral sampler",
}


def family(method: str, sampler: str) -> str:
    if method == "full":
        return "full" if sampler == "ddpm100" else "ancestral" if sampler.startswith("ancestral") else "ddim"
    return method.split("_")[0]


def cost(results: TaskResults, key: str) -> float | None:
    """Milliseconds of a chunk in the compiled runtime, or GFLOP of a task without timings; None if unknown."""
    if results.benchmark is None:
        return results.row(key)["gflop_per_chunk"]
    timed = results.benchmark.row(key, "compiled")
    return None if timed is None else timed["ms_p50"]


def draw(task: str, path: Path) -> None:
    results = read_frontier(task) or read_task(task)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    labelled, kinds = set(), []
    for row in results.rows:
        x = cost(results, f"{row['method']}@{row['sampler']}")
        if x is None:
            continue
        kind = family(row["method"], row["sampler"])
        low, high = row["interval_95"]
        below, above = max(row["mean_score"] - low, 0), max(high - row["mean_score"], 0)
        axis.errorbar(
            x,
            row["mean_score"],
            [[below], [above]],
            fmt="*" if f"{row['method']}@{row['sampler']}" == tuned_key(task) else "o",
            color=COLOURS[kind],
            capsize=3,
            markersize=13 if f"{row['method']}@{row['sampler']}" == tuned_key(task) else 7,
            label=None if kind in labelled else FAMILIES.get(kind, "full policy"),
        )
        labelled.add(kind)
        name = label(row["method"], row["sampler"]).replace(", budget ", " ").replace(", on ", " + ")
        name += ", tuned" if f"{row['method']}@{row['sampler']}" == tuned_key(task) else ""
        lower = sum(drawn == "ancestral" for drawn in kinds) % 3 if kind == "ancestral" else 0
        kinds.append(kind)
        write_name(axis, name.replace("full policy (DDPM-100)", "full policy"), kind, (x, low, high), lower)
    axis.set_xscale("log")
    unit = "GFLOP" if results.benchmark is None else "ms"
    axis.set_xlabel(f"{unit} per action chunk (log scale; left is faster)")
    axis.set_ylabel(f"{results.score_name}, 95 % interval")
    axis.set_ylim(-0.03, 1.12)
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axis.set_xlim(axis.get_xlim()[0] / 1.2, axis.get_xlim()[1] * 1.2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    where = (
        "" if results.benchmark is None else f", compiled runtime, {results.benchmark.info['provenance']['hardware']}"
    )
    axis.set_title(f"{results.title}: {results.rows[0]['n_episodes']} episodes{where}", fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", linewidth=0.4, alpha=0.5)
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def write_name(axis: Axes, name: str, kind: str, at: tuple[float, float, float], lower: int) -> None:
    """Samplers above their interval, caches below it, and `lower` lines further, so that neighbours do not overlap.

    Args:
        at: x, and the ends of the interval.
    """
    x, low, high = at
    above = kind in ("ddim", "full") or low < 0.1
    across = "right" if kind == "uniform" and not above else "center"
    offset = (0, 4 if above else -11 * (1 + lower))
    axis.annotate(
        name,
        (x, high if above else low),
        offset,
        textcoords="offset points",
        fontsize=8,
        color=COLOURS[kind],
        ha=across,
    )


def main(folder: Path = FIGURES) -> list[Path]:
    paths = [folder / f"{task}.png" for task in TITLES]
    for task, path in zip(TITLES, paths):
        draw(task, path)
    return paths


if __name__ == "__main__":
    main()
