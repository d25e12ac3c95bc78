"""Draws the score of every method against what it costs, a picture per task: python -m docs.figures.make_scores

From the stored result files alone, as a report draws them: the comparison over several noise seeds where there is one.
"""

from __future__ import annotations

from pathlib import Path

from bac.drawing import save
from bac_workbench.reporting.names import TITLES
from bac_workbench.reporting.pictures import draw_scores
from bac_workbench.reporting.studies import read_studies
from bac_workbench.reporting.tuned import tuned_methods
from docs.generate.stored import RESULTS, ROOT

FIGURES = Path(__file__).parent


def main(folder: Path = FIGURES) -> list[Path]:
    studies, _ = read_studies([RESULTS], 0.05, tuned_methods(ROOT / "assets", TITLES))
    first = {study.task: study for study in reversed(studies)}
    paths = [folder / f"{task}.png" for task in TITLES]
    for task, path in zip(TITLES, paths):
        save(draw_scores(first[task]), path)
    return paths


if __name__ == "__main__":
    main()
