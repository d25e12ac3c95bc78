"""Compare stored evaluations, paired with the full policy: python scripts/compare.py results/pusht_lowdim [full]

The second argument names the run of the full policy to pair with, where there are several (other seeds, weights, runtimes).
"""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.comparison import compare, comparison_table  # noqa: E402
from experiments.console import console, readable_errors  # noqa: E402


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python scripts/compare.py RESULTS_FOLDER [REFERENCE]   "
                         "(the folder that holds full/, bac/, ...; the run of the full policy in it, such as full-seed1)")
    with readable_errors():
        folder = Path(sys.argv[1])
        comparison = compare(folder, *sys.argv[2:])
        console.print(comparison_table(comparison.rows))
        console.print(f"paired with {comparison.reference}")
        for run, reason in comparison.skipped.items():
            console.print(f"left out: {run}: {reason}", style="yellow")
        console.print(f"written: {folder / 'comparison.md'}, comparison.json")


if __name__ == "__main__":
    main()
