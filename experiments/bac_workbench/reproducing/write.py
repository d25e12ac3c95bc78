"""The folder of the tables: whether it is this command's own, and the files that it ends with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bac_workbench.evaluation.comparison import Comparison
from bac_workbench.evaluation.comparison_files import latex_section, markdown_section, write_csv, write_text
from bac_workbench.evaluation.comparison_tables import Lines
from bac_workbench.provenance import commit
from bac_workbench.reporting.tuned import tuned_methods
from bac_workbench.reporting.write import write_report
from bac_workbench.reproducing.cells import EVALUATIONS
from bac_workbench.reproducing.published import HEADINGS, OWN
from bac_workbench.reproducing.rows import Row, in_table, read_rows
from bac_workbench.reproducing.tables import NOTES, OWN_NOTE, groups_of, main_table, record, task_table
from bac_workbench.settings.reproducing import Reproduce
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json

DESCRIPTION = "reproduce.json"
TITLES = {
    1: "Table 1: success, arithmetic and wall-clock",
    2: "Table 2: ablation of BAC's parts",
}
#: settings for the evaluations that decide none of their numbers
FREE = (
    "launcher",
    "hydra",
    "wandb",
    "eval.n_envs",
    "eval.n_workers",
    "eval.overlap",
    "eval.n_videos",
    "threads",
    "download",
)
NEEDED = ("plotly", "jinja2", "markupsafe")


def check_installed() -> None:
    """Raises ConfigError where the page could not be made at the end of all evaluations."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(
            f"{' and '.join(missing)} not installed, for report.html: pip install 'bac-workbench[report]'"
        )


def open_folder(output: Path, settings: Reproduce, others: Sequence[str]) -> None:
    """Creates the folder, or finds that it is of this very reproduction; tasks, seeds and methods may be added.

    Raises:
        ConfigError: it holds something else.
    """
    decides = {
        "runtime": settings.runtime,
        "settings": sorted(text for text in others if not text.lstrip("+~").startswith(FREE)),
    }
    path = output / DESCRIPTION
    if path.exists():
        try:
            stored = json.loads(path.read_bytes())["decides"]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path} is damaged ({error!r}): restore it, or choose another output_dir=") from error
        if stored != decides:
            raise ConfigError(
                f"{output} holds a reproduction with {shown(stored)}, and this one has {shown(decides)}: choose "
                "another output_dir="
            )
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} is there, and no folder of bac reproduce: choose another output_dir=")
    output.mkdir(parents=True, exist_ok=True)
    write_json(path, {"decides": decides, "asked": settings.to_dict(), "commit": commit()})


def shown(decides: Mapping[str, Any]) -> str:
    return " ".join([f"runtime={decides.get('runtime')}", *decides.get("settings", [])])


def write_all(output: Path, settings: Reproduce, assets: str, say: Callable[[str], None]) -> bool:
    """Writes every table, and the page with its figures, of all that is in the folder.

    Returns:
        Whether every task's evaluations could be compared.
    """
    rows: list[Row] = []
    comparisons: dict[str, Comparison] = {}
    complete = True
    folders = sorted(
        path for path in (output / EVALUATIONS).glob("*") if path.is_dir() and not path.name.startswith(".")
    )
    tuned = tuned_methods(Path(assets), [folder.name for folder in folders])
    for folder in folders:
        try:
            found, comparison = read_rows(folder, settings.margin, tuned)
        except ConfigError as error:
            complete = False
            say(f"left out: {folder.name}: {error}")
            continue
        rows += found
        comparisons[str(comparison.facts["task"])] = comparison
        for run, reason in comparison.skipped.items():
            complete = False
            say(f"left out: {folder.name}/{run}: {reason}")
    if not rows:
        say("no table: no task has an evaluation of the full policy yet")
        return False
    for table in settings.tables:
        write_table(output, table, [row for row in rows if in_table(row, table)], comparisons, settings.margin)
        say(f"table {table}: {output / f'table{table}'}.md, .tex, .csv")
    asked = {
        "margin": settings.margin,
        "videos_mb": 12.0,
        "pictures": settings.pictures,
        "output_dir": str(output),
        "assets_dir": assets,
        "overwrite": True,  # the folder is this command's own
    }
    write_report([output / EVALUATIONS], asked, say)
    return complete


def write_table(
    output: Path, table: int, rows: Sequence[Row], comparisons: Mapping[str, Comparison], margin: float
) -> None:
    sections: list[tuple[str, Lines, list[str]]] = []
    for group in groups_of(rows):
        own = [row for row in rows if row.group == group]
        notes = [*(NOTES if not sections else ()), *([OWN_NOTE] if group == OWN else [])]
        sections.append((f"{TITLES[table]}. {HEADINGS[group]}", main_table(own, group, table), notes))
    for task in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == task]
        notes = [conditions(comparisons[task])]
        notes += [f"times: batch 1, {machine}" for machine in dict.fromkeys(row.machine for row in own) if machine]
        sections.append((task, task_table(own, margin, table), notes))
    stem = output / f"table{table}"
    write_text(stem.with_suffix(".md"), "\n".join(markdown_section(*item) for item in sections))
    latexed = [latex_section(title, plain(lines), notes) for title, lines, notes in sections]
    write_text(stem.with_suffix(".tex"), "% \\usepackage{booktabs}\n" + "\n".join(latexed))
    write_csv(stem.with_suffix(".csv"), [record(row, comparisons[row.task], table) for row in rows])


def plain(lines: Lines) -> Lines:
    """Without the marks of Markdown."""
    head, body = lines
    return head, [[cell.replace("*paper*", "paper") for cell in line] for line in body]


def conditions(comparison: Comparison) -> str:
    """Which policy and episodes the rows of a task are of."""
    facts = comparison.facts
    seeds = ", ".join(map(str, facts["seeds"]))
    return (
        f"test seeds from {facts['test_seeds_from']}, at most {facts['max_steps']} steps; noise seeds {seeds}; weights "
        f"{facts['weights']}, {facts['precision']}, rollouts in runtime {facts['runtime']}; every method paired with "
        "the full policy on the same episodes and noise"
    )
