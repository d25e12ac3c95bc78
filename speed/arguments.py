"""key=value arguments of `python -m speed.peers` and `python -m speed.growth`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bac_workbench.settings.arguments import read_settings
from bac_workbench.settings.kinds import Boolean, Count, Section, Threads
from bac_workbench.settings.kinds import Path as PathText
from diffusion_policy.common.config import ConfigError


class Speed(Section):
    rounds: Count
    threads: Threads
    output: PathText
    overwrite: Boolean


def read(texts: list[str], usage: str, output: str, rounds: int) -> dict[str, Any]:
    """The settings; Raises SystemExit with an explanation for anything that is not understood, or a file in the way."""
    if any(text in ("-h", "--help", "help") for text in texts):
        print(usage)
        raise SystemExit(0)
    defaults = {"rounds": rounds, "threads": 1, "output": output, "overwrite": False}
    try:
        values = read_settings(texts, Speed, defaults, usage.split(" [")[0].removeprefix("usage: ") + " --help")
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
    values["output"] = Path(values["output"])
    if values["output"].exists() and not values["overwrite"]:
        raise SystemExit(f"error: {values['output']} is there: choose another output=, or overwrite=true to replace it")
    return values
