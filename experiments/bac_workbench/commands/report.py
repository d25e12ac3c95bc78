"""One page of everything that is stored: bac report results/pusht_lowdim

usage: bac report FOLDER [FOLDER ...] [margin=0.05] [videos_mb=12] [pictures=true] [output_dir=...]

A FOLDER holds evaluations, at any depth, or kept results (<task>_comparison.json, <task>_frontier.json and their
benchmarks), as docs/results does. Profiles and schedules of their checkpoints are looked for in assets_dir=assets, what
bac benchmark wrote beside the evaluations, and what bac figures wrote anywhere in the folders.

Written to output_dir, or report/ in the first FOLDER: report.html, which opens from disk without a network and filters
by task, method and budget; report.md; and figures/, every figure as PNG and as PDF (not with pictures=false).
videos_mb= is how much of the page videos may take. The page needs the extra `report`.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from bac_workbench.console import console, readable_errors
from bac_workbench.settings import read_arguments, wants_help
from bac_workbench.settings.arguments import read_positional, split_settings
from diffusion_policy.common.config import ConfigError

DEFAULTS = {
    "margin": 0.05,
    "videos_mb": 12.0,
    "pictures": True,
    "output_dir": None,
    "assets_dir": "assets",
    "overwrite": False,
}
NEEDED = ("plotly", "jinja2", "markupsafe")


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        names, settings = split_settings(sys.argv[1:])
        read_positional(names, "report", ("FOLDER",) * max(1, len(names)))
        values = read_arguments(settings, "report", DEFAULTS)
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise ConfigError(f"{' and '.join(missing)} not installed: pip install 'bac-workbench[report]'")
        from bac_workbench.reporting.write import write_report

        write_report(
            [Path(name) for name in names], values, lambda line: console.print(line, soft_wrap=True, markup=False)
        )
