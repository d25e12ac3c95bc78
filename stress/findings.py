"""What went wrong, stored so that it can be tried again, and the rows of the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

KEPT = 5  # inputs stored of findings that look alike


@dataclass(frozen=True)
class Finding:
    """One thing that must not happen.

    Attributes:
        part, kind: where: fuzz, kills, races, disks, native or serve, and which of them.
        what: death, time, memory, exception, ...
        summary: one line.
        detail: a traceback, or the output of a command.
        again: the command that does it again.
    """

    part: str
    kind: str
    what: str
    summary: str
    detail: str
    again: str

    @property
    def likeness(self) -> tuple[str, str, str]:
        """Findings that share it are shown once: the same place of the program, or the same words."""
        frames = [line.strip() for line in self.detail.splitlines() if line.strip().startswith("File ")]
        return self.kind, self.what, frames[-1] if frames else self.summary


@dataclass
class Findings:
    """All findings of a run. Those that look alike are counted, and `KEPT` of them stored."""

    folder: Path
    all: list[Finding] = field(default_factory=list)
    alike: Counter = field(default_factory=Counter)

    def add(self, finding: Finding, write_input: Callable[[Path], None] | None = None) -> None:
        self.all.append(finding)
        self.alike[finding.likeness] += 1
        if self.alike[finding.likeness] > KEPT:
            return
        place = (
            self.folder
            / f"{len(self.all):04d}-{finding.part}-{''.join(c if c.isalnum() else '-' for c in finding.kind)}"
        )
        place.mkdir(parents=True, exist_ok=True)
        (place / "finding.json").write_text(json.dumps(asdict(finding), indent=2) + "\n")
        if write_input is not None:
            write_input(place / "input")

    def take_over(self, others: list[Finding]) -> None:
        """Those of another process, which has stored them already."""
        self.all += others
        self.alike.update(finding.likeness for finding in others)

    def for_people(self) -> list[str]:
        """One line for findings that look alike."""
        firsts = {finding.likeness: finding for finding in reversed(self.all)}
        return [
            f"{finding.part} / {finding.kind}: {finding.what}: {finding.summary[:160]} ({self.alike[likeness]} times)\n"
            f"    {finding.again}"
            for likeness, finding in reversed(firsts.items())
        ]


@dataclass(frozen=True)
class Row:
    """One line of the report's table; `peak` in bytes above the start, None where it is not measured."""

    part: str
    kind: str
    tried: int
    survived: int
    findings: int
    seconds: float
    peak: int | None
    note: str = ""
