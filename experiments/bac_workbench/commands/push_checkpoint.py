"""Upload a policy to the Hugging Face Hub, with its schedules and its certificate, in one commit.

    bac checkpoint push checkpoint=checkpoint/pusht_lowdim/ddpm100 to=hf:user/pusht assets=assets/pusht_lowdim
    bac eval task=pusht_lowdim checkpoint=hf:user/pusht cache=tuned

Settings: to=hf:user/name (or hf:user/name/folder, @branch), assets=<folder with schedules/ and tuned.json>, weights=ema
(or raw), private=true (of a new repository), overwrite=false. HF_TOKEN, HF_ENDPOINT and a login of `hf` hold.
"""

from __future__ import annotations

import sys
from typing import Any

from bac_workbench.console import readable_errors
from bac_workbench.settings import read_arguments, wants_help

DEFAULTS = {
    "checkpoint": None,
    "to": None,
    "assets": None,
    "weights": "ema",
    "private": True,
    "overwrite": False,
}


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        push_checkpoint(settings(sys.argv[1:]))


def settings(arguments: list[str]) -> dict[str, Any]:
    """key=value arguments over `DEFAULTS`."""
    return read_arguments(arguments, "push_checkpoint", DEFAULTS)


def push_checkpoint(chosen: dict[str, Any]) -> None:
    from bac_workbench.setup.publishing import push

    pushed = push(**chosen)
    print(f"pushed {', '.join(pushed.files)}\nto     {pushed.page}\nload   {pushed.address}")
