"""Compare stored evaluations, paired with the full policy: python scripts/compare.py results/pusht_lowdim

usage: python scripts/compare.py RESULTS_FOLDER   (the folder that holds full/, bac/, ...)

Evaluations of the same checkpoint, noise and test seeds are compared; comparison.md and comparison.json are written there.
"""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffusion_policy.common.config import ConfigError  # noqa: E402
from experiments.comparison import compare, comparison_table  # noqa: E402
from experiments.console import console, readable_errors  # noqa: E402
from experiments.settings import read_positional, wants_help  # noqa: E402


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        (folder,) = read_positional(sys.argv[1:], "compare", ("RESULTS_FOLDER",))
        if not Path(folder).is_dir():
            raise ConfigError(f"there is no folder {folder}: name the one that holds full/, bac/, ...")
        rows = compare(Path(folder))
        console.print(comparison_table(rows))
        console.print(f"written: {Path(folder) / 'comparison.md'}, comparison.json")


if __name__ == "__main__":
    main()
