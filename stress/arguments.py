"""key=value arguments of `python -m stress`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bac_workbench.settings.arguments import read_settings
from bac_workbench.settings.kinds import Boolean, CountOrZero, Kind, NoiseSeed, Section, Text, integer, nullable
from bac_workbench.settings.kinds import Path as PathText
from diffusion_policy.common.config import ConfigError

PARTS = ("fuzz", "kills", "races", "disks", "native", "serve")
HELP = """usage: python -m stress [key=value ...]          (make stress STRESS_ARGS="key=value ...")

  seed=0            of everything that is random
  parts=fuzz,kills,races,disks,native,serve
  inputs=100000     mutated files, divided among the kinds of files
  kills=20          of each kind of job
  races=10          of each kind of job
  disks=10          of each kind of job, full at so many different points
  damages=40        of the native engine's cache
  serve_seconds=60  clients of bac serve ask without a pause
  serve_clients=8   of them at once; hostile ones come beside them
  jobs=2            processes at once
  kinds=null        only kinds of files and jobs whose name contains one of these words: kinds=zarr,conversion
  output=null       folder for findings and stress.json; a temporary one unless given
  forked=true       jobs start as forks of a process that has imported everything; false: as new interpreters, which
                    takes longer

  again=KIND index=N seed=S    reads one mutated file again, in this process and without limits
"""
_PART = "|".join(PARTS)


class Stress(Section):
    seed: NoiseSeed
    parts: Annotated[
        str, Field(pattern=rf"^(?:{_PART})(?:,(?:{_PART}))*,?$"), Kind(f"some of {','.join(PARTS)}", text=True)
    ]
    inputs: integer(0, 10**9)
    kills: CountOrZero
    races: CountOrZero
    disks: CountOrZero
    damages: CountOrZero
    serve_seconds: integer(4, 24 * 3600)
    serve_clients: integer(1, 1000)
    jobs: integer(1, 1024)
    kinds: nullable(Text)
    output: nullable(PathText)
    forked: Boolean
    again: nullable(Text)
    index: integer(0, 10**9)


@dataclass(frozen=True)
class Arguments:
    """See `HELP`."""

    seed: int = 0
    parts: tuple[str, ...] = PARTS
    inputs: int = 100_000
    kills: int = 20
    races: int = 10
    disks: int = 10
    damages: int = 40
    serve_seconds: int = 60
    serve_clients: int = 8
    jobs: int = 2
    kinds: str = ""
    output: Path | None = None
    forked: bool = True
    again: str = ""
    index: int = -1


def read(texts: list[str]) -> Arguments:
    """Raises SystemExit with an explanation for anything that is not understood."""
    if any(text in ("-h", "--help", "help") for text in texts):
        print(HELP)
        raise SystemExit(0)
    defaults = {**asdict(Arguments()), "parts": ",".join(PARTS), "kinds": None, "again": None}
    try:
        values = read_settings(texts, Stress, defaults, "python -m stress --help")
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
    values["parts"] = tuple(part for part in values["parts"].split(",") if part)
    values["output"] = None if values["output"] is None else Path(values["output"]).resolve()
    return Arguments(**{**values, "kinds": values["kinds"] or "", "again": values["again"] or ""})
