"""Write any loadable checkpoint in this project's form (policy.safetensors + config.yaml, no pickle).

    bac checkpoint convert checkpoint=latest.ckpt output=checkpoint/pusht_lowdim/original

Settings: weights=ema (or raw), half=true (half precision; false keeps every bit), overwrite=false.
"""

from __future__ import annotations

import sys
from typing import Any

from bac_workbench.console import readable_errors
from bac_workbench.settings import read_arguments, wants_help

DEFAULTS = {"checkpoint": None, "output": None, "weights": "ema", "half": True, "overwrite": False}


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        convert_checkpoint(settings(sys.argv[1:]))


def settings(arguments: list[str]) -> dict[str, Any]:
    """key=value arguments over `DEFAULTS`."""
    return read_arguments(arguments, "convert_checkpoint", DEFAULTS)


def convert_checkpoint(chosen: dict[str, Any]) -> None:
    from bac_workbench.setup.conversion import convert

    convert(**chosen)
