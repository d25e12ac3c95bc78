"""Compare stored evaluations, paired with the full policy: python scripts/compare.py results/pusht_lowdim [full]

usage: python scripts/compare.py RESULTS_FOLDER [REFERENCE]   (the folder that holds full/, bac/, ...)

The second argument names the run of the full policy to pair with, where there are several (other seeds, weights, runtimes).
Evaluations of the same checkpoint, noise and test seeds are compared; comparison.md and comparison.json are written there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "experiments")]

from bac_workbench.console import console, readable_errors  # noqa: E402
from bac_workbench.evaluation.comparison import compare, comparison_table  # noqa: E402
from bac_workbench.settings import read_positional, wants_help  # noqa: E402
from diffusion_policy.common.config import ConfigError  # noqa: E402


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        name, *reference = read_positional(sys.argv[1:], "compare", ("RESULTS_FOLDER", "REFERENCE"), optional=1)
        folder = Path(name)
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: name the one that holds full/, bac/, ...")
        comparison = compare(folder, *reference)
        console.print(comparison_table(comparison.rows))
        console.print(f"paired with {comparison.reference}")
        for run, reason in comparison.skipped.items():
            console.print(f"left out: {run}: {reason}", style="yellow")
        console.print(f"written: {folder / 'comparison.md'}, comparison.json")


if __name__ == "__main__":
    main()
