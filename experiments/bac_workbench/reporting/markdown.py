"""report.md: the tables of a report, its pictures by name, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.content import TaskPart, overviews, surge_table
from bac_workbench.reporting.pictures import pictures_behind, pictures_of
from bac_workbench.reporting.studies import Study


def summary(studies: Sequence[Study], parts: Sequence[TaskPart], pictures: bool, left_out: dict[str, str]) -> str:
    """The text.

    Args:
        pictures: whether figures/ holds them.
        left_out: folder -> why it is not among the studies.
    """
    blocks = ["# Report"]
    for table in overviews(studies):
        blocks += [f"{table.title}:", markdown(table.lines).strip()]
    for part in parts:
        blocks += task_blocks(part, pictures)
    if left_out:
        blocks += ["## Left out", *bullets(f"{folder}: {reason}" for folder, reason in left_out.items())]
    return "\n\n".join(blocks) + "\n"


def task_blocks(part: TaskPart, pictures: bool) -> Iterator[str]:
    yield f"## {part.title}"
    for item in part.studies:
        study = item.study
        yield f"### {study.heading}"
        for table in study.tables:
            if table.title:
                yield f"{table.title}:"
            yield markdown(table.lines).strip()
            yield from bullets(table.notes)
        if pictures:
            yield from images(name for name, _ in pictures_of(study))
        yield from bullets(item.missing)
        yield f"From `{study.source}`, checkpoint {study.facts['checkpoint_hash'][:12]}."
    for evidence in part.evidence:
        yield f"### Checkpoint {evidence.checkpoint_hash[:12]}"
        if pictures:
            yield from images(name for name, _ in pictures_behind(evidence))
        if evidence.surge is not None:
            yield markdown(surge_table(evidence.surge)).strip()
        yield from bullets(part.missing_behind(evidence))


def images(names: Iterator[str]) -> Iterator[str]:
    for name in names:
        yield f"![{name}](figures/{name}.png)"


def bullets(lines: Sequence[str] | Iterator[str]) -> list[str]:
    """One list; empty where there are no lines."""
    found = [f"- {' '.join(line.split())}" for line in lines]
    return ["\n".join(found)] if found else []
