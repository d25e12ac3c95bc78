"""Evaluations side by side, each paired with the full policy on the same episodes and noise; of one task or several.

Runs of one method that differ in the noise seed alone are pooled into one row, paired seed by seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bac_workbench.evaluation.comparison_files import write_comparison, write_overview
from bac_workbench.evaluation.comparison_rows import MARGIN, make_row, with_unique_labels
from bac_workbench.evaluation.folder import RESULTS
from bac_workbench.evaluation.latency_picture import latency
from bac_workbench.evaluation.pooling import PooledRuns, pool
from bac_workbench.evaluation.references import choose_references, why_not
from bac_workbench.evaluation.stored_results import SAME, read_evaluation
from bac_workbench.setup.clock import clock_label
from diffusion_policy.common.config import ConfigError


@dataclass(frozen=True)
class Comparison:
    """The evaluations of one folder.

    Attributes:
        rows: in the order shown, JSON-able.
        references: the runs they are paired with.
        skipped: run -> why it was left out.
        reference_clock: of the runs they are paired with, '' where the world waits.
        facts: what these runs share, with `runs`, `seeds`, `commit` and `hardware` of the first.
        episodes: a record for each episode that counts.
        margin: of the verdicts.
        files: names of what was written.
    """

    rows: list[dict[str, Any]]
    references: tuple[str, ...]
    skipped: dict[str, str]
    reference_clock: str
    facts: dict[str, Any]
    episodes: list[dict[str, Any]]
    margin: float
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overview:
    """The evaluations of several folders, by their paths below the one that was asked for.

    Attributes:
        skipped: folder -> why it was left out.
        files: names of what was written.
    """

    tasks: dict[str, Comparison]
    skipped: dict[str, str]
    files: tuple[str, ...]


def compare_all(folder: Path, reference: str | None = None, margin: float = MARGIN) -> Comparison | Overview:
    """Compares the evaluations in `folder` or, if it holds none to compare itself, in the folders below, one by one.

    Args, Raises: see `compare`; also where no folder can be compared, with each one's reason.
    """
    folders = task_folders(folder)
    if folder in folders or not folders:
        try:
            return compare(folder, reference, margin)
        except ConfigError:
            if len(folders) < 2 or reference is not None:
                raise
    tasks, skipped = {}, {}
    for path in folders:
        name = path.relative_to(folder).as_posix()
        try:
            tasks[name] = paired(path, reference, margin)
        except ConfigError as error:
            skipped[name] = str(error)
    if not tasks:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in skipped.items())
        raise ConfigError(f"{folder} holds nothing that can be compared:\n{reasons}")
    return Overview(tasks, skipped, tuple(write_overview(folder, tasks, skipped)))


def compare(folder: Path, reference: str | None = None, margin: float = MARGIN) -> Comparison:
    """Reads every `*/eval_results.json` in `folder`, pairs them with the full policy and writes the comparison's files.

    Where a world went on while the policy thought, also latency.png. Such runs are paired with the full policy for
    which the world waits, if it is there; their labels tell the clock.

    Args:
        reference: the run (a folder's name) to pair with; None: the full policy's run of each noise seed.
        margin: of the verdicts.

    Raises:
        ConfigError: a file is damaged; or there is no run of the full policy with the checkpoint's own sampler, or
            there are several of one noise seed.
    """
    comparison = paired(folder, reference, margin)
    others = {
        f"{path.relative_to(folder).as_posix()}/": f"evaluations of their own: bac compare {path}"
        for path in task_folders(folder)
        if path != folder
    }
    comparison = replace(comparison, skipped={**comparison.skipped, **others})
    return replace(comparison, files=tuple(write_comparison(folder, comparison)))


def task_folders(folder: Path) -> list[Path]:
    """The folders at and below `folder` whose subfolders are evaluations; what lies inside an evaluation is part of
    it."""
    found = {path.parent.parent for path in folder.rglob(RESULTS) if path.parent != folder}
    inside = {
        path for path in found for above in (path, *path.parents) if (above / RESULTS).exists() and above != folder
    }
    return sorted(found - inside)


def paired(folder: Path, reference: str | None = None, margin: float = MARGIN) -> Comparison:
    """The evaluations of one folder; see `compare`. Writes nothing."""
    evaluations = [read_evaluation(path) for path in sorted(folder.glob(f"*/{RESULTS}"))]
    references = choose_references(folder, evaluations, reference)
    kept, skipped = [], {}
    for evaluation in evaluations:
        reason = why_not(evaluation, references)
        if reason is None:
            kept.append(evaluation)
        else:
            skipped[evaluation.run] = reason
    full = PooledRuns(tuple(references.values()))
    pooled = [(make_row(runs, full, margin), runs) for runs in pool(kept)]
    pooled.sort(key=lambda item: (-item[0]["gflop_per_chunk"], *latency(item[0])))
    rows, first = with_unique_labels([row for row, _ in pooled]), full.first
    facts = {key: first.provenance.get(key) for key in (*SAME, "precision", "runtime", "commit", "hardware")}
    episodes = [
        {"task": facts["task"], "row": row["label"], "runtime": row["runtime"], **episode}
        for row, (_, runs) in zip(rows, pooled)
        for episode in runs.episodes(runs.shared_with(full))
    ]
    return Comparison(
        rows=rows,
        references=full.names,
        skipped=skipped,
        reference_clock=clock_label(first.clock),
        facts={"runs": list(full.names), **facts, "clock": first.clock, "seeds": list(full.noise_seeds)},
        episodes=episodes,
        margin=margin,
    )
