"""Compare stored evaluations, paired with the full policy: python scripts/compare.py results/pusht_lowdim"""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.comparison import compare, comparison_table  # noqa: E402
from experiments.console import console, readable_errors  # noqa: E402


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python scripts/compare.py RESULTS_FOLDER   (the folder that holds full/, bac/, ...)")
    with readable_errors():
        rows = compare(Path(sys.argv[1]))
        console.print(comparison_table(rows))
        console.print(f"written: {Path(sys.argv[1]) / 'comparison.md'}, comparison.json")


if __name__ == "__main__":
    main()
