"""Uniform against BAC, as a report in Weights & Biases or a local page: bac dashboard results/pusht_lowdim

usage: bac dashboard RESULTS_FOLDER [where=auto|wandb|local] [project=bac] [entity=...] [title=...] [margin=0.05]

For each task below the folder: bars of score, success rate, arithmetic and speed-up by method, success against time,
and the table of bac compare. where=auto makes a report where you are logged in to Weights & Biases, whose panels draw
the runs that evaluations logged to that project (wandb.mode=online, or offline and `wandb sync`); where you are not, or
its server does not answer, a page RESULTS_FOLDER/dashboard.html, which needs no network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bac_workbench.console import console, readable_errors
from bac_workbench.settings import read_arguments, read_positional, split_settings, wants_help
from diffusion_policy.common.config import ConfigError

DEFAULTS = {"where": "auto", "project": "bac", "entity": None, "title": "Uniform against BAC", "margin": 0.05}
PAGE = "dashboard.html"


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        names, settings = split_settings(sys.argv[1:])
        (name,) = read_positional(names, "dashboard", ("RESULTS_FOLDER",))
        values = read_arguments(settings, "dashboard", DEFAULTS)
        folder = Path(name)
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: name the one that holds full/, bac/, ...")
        make_dashboard(folder, values)


def make_dashboard(folder: Path, values: dict[str, Any]) -> None:
    from bac_workbench.dashboard.online import reports, save_report
    from bac_workbench.dashboard.page import check_plotly, write_page
    from bac_workbench.dashboard.panels import read_studies

    where, title = values["where"], values["title"]
    online = where != "local" and reachable(must=where == "wandb")
    if online:
        reports()
    else:
        check_plotly()
    studies, skipped = read_studies(folder, values["margin"])
    for left_out, reason in skipped.items():
        console.print(f"left out: {left_out}: {reason}", style="yellow")
    if online:
        console.print(f"report: {save_report(title, values['project'], values['entity'], studies)}")
    else:
        write_page(folder / PAGE, title, studies, skipped)
        console.print(f"page: {folder / PAGE}")


def reachable(must: bool) -> bool:
    """Whether there is a login to Weights & Biases that works; said if there is none.

    Raises:
        ConfigError: there is none, and one `must` be there.
    """
    from bac_workbench.tracking.run import logged_in

    try:
        found, why = logged_in(), "not logged in to Weights & Biases"
    except ConfigError as error:
        if must:
            raise
        found, why = False, str(error)
    if must and not found:
        raise ConfigError("where=wandb needs a login: run `wandb login`, or use where=local")
    if not found:
        console.print(f"note: {why}; the dashboard is a page on this machine", style="yellow")
    return found
