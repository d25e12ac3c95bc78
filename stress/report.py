"""The table, the findings and stress.json."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stress.findings import Findings, Row

PACKAGES = ("torch", "numpy", "zarr", "numcodecs", "h5py", "safetensors", "omegaconf", "hydra-core", "diffusers")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import os

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 2**20
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None  # an extra that is not installed; its kinds are not tried
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
    }


def table(rows: Sequence[Row]) -> Table:
    table = Table(title="tried and survived")
    for name in ("part", "kind", "tried", "survived", "findings", "seconds", "peak MB", "note"):
        table.add_column(name, justify="left" if name in ("part", "kind", "note") else "right")
    for row in rows:
        peak = "-" if row.peak is None else f"{row.peak / 1e6:.0f}"
        table.add_row(
            row.part,
            row.kind,
            f"{row.tried:,}",
            f"{row.survived:,}",
            str(row.findings),
            f"{row.seconds:.0f}",
            peak,
            row.note,
            style="red" if row.findings else None,
        )
    return table


def write(folder: Path, rows: Sequence[Row], findings: Findings, arguments: dict[str, Any], seconds: float) -> Path:
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
        "arguments": arguments,
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
        "tried": sum(row.tried for row in rows),
        "findings": [asdict(finding) for finding in findings.all],
    }
    path = folder / "stress.json"
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")
    return path


def show(rows: Sequence[Row], findings: Findings, path: Path, seconds: float) -> None:
    console = Console(width=160, highlight=False)
    console.print(table(rows))
    for line in findings.for_people():
        console.print(line, style="red", markup=False)
    console.print(
        f"{sum(row.tried for row in rows):,} tries, {len(findings.all)} findings, {seconds:.0f} s; {path}", markup=False
    )
