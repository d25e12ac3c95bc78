"""Draws error_surge_pusht.png from the kept numbers of `bac figures`: python -m docs.figures.make_surge"""

from __future__ import annotations

from pathlib import Path

from bac.drawing import save
from bac_workbench.reporting.evidence import read_surge
from bac_workbench.reporting.pictures import draw_surge
from docs.generate.stored import RESULTS

FIGURES = Path(__file__).parent


def main(path: Path = FIGURES / "error_surge_pusht.png") -> Path:
    _, surge = read_surge(RESULTS / "pusht_lowdim_figures" / "figures.json")
    save(draw_surge(surge), path)
    return path


if __name__ == "__main__":
    main()
