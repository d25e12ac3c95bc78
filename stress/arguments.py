"""key=value arguments of `python -m stress`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

PARTS = ("fuzz", "kills", "races", "disks", "native")
HELP = """usage: python -m stress [key=value ...]          (make stress STRESS_ARGS="key=value ...")

  seed=0            of everything that is random
  parts=fuzz,kills,races,disks,native
  inputs=100000     mutated files, divided among the kinds of files
  kills=20          of each kind of job
  races=10          of each kind of job
  disks=10          of each kind of job, full at so many different points
  damages=40        of the native engine's cache
  jobs=2            processes at once
  kinds=            only kinds of files and jobs whose name contains one of these words: kinds=zarr,conversion
  output=           folder for findings and stress.json; a temporary one unless given
  forked=true       jobs start as forks of a process that has imported everything; false: as new interpreters, which takes longer

  again=KIND index=N seed=S    reads one mutated file again, in this process and without limits
"""


@dataclass
class Arguments:
    """See `HELP`."""

    seed: int = 0
    parts: tuple[str, ...] = PARTS
    inputs: int = 100_000
    kills: int = 20
    races: int = 10
    disks: int = 10
    damages: int = 40
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
    arguments, known = Arguments(), {item.name for item in fields(Arguments)}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise SystemExit(f"error: {text!r} is not one of the settings\n\n{HELP}")
        setattr(arguments, name, _value(name, value))
    return arguments


def _value(name: str, text: str):
    if name == "parts":
        parts = tuple(part for part in text.split(",") if part)
        if not parts or set(parts) - set(PARTS):
            raise SystemExit(f"error: parts={text}: use some of {','.join(PARTS)}")
        return parts
    if name == "forked":
        if text not in ("true", "false"):
            raise SystemExit(f"error: forked={text}: use true or false")
        return text == "true"
    if name == "output":
        return Path(text).resolve()
    if name in ("kinds", "again"):
        return text
    if not text.isdecimal() or (name == "jobs" and int(text) < 1):
        raise SystemExit(f"error: {name}={text}: use a whole number{' from 1' if name == 'jobs' else ''}")
    return int(text)
