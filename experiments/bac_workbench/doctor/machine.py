"""Checks of the machine that need Python's own library only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bac_workbench.doctor.rows import FAIL, MISSING, PASS, Row, quoted, supported_pythons
from bac_workbench.locations import CHECKOUT

SPACE = 1e9  # bytes; videos and results of a sweep, or the compiler's temporary files


def python() -> list[Row]:
    """The version, and whether the project supports it."""
    supported = supported_pythons()
    version = sys.version_info[:2]
    compare = {">=": version.__ge__, "<": version.__lt__}
    fits = all(
        compare[sign]((int(major), int(minor))) for sign, major, minor in re.findall(r"(>=|<)(\d+)\.(\d+)", supported)
    )
    found = f"{sys.version.split()[0]} ({sys.executable}); supported: {supported}"
    return [Row("Python", found, PASS if fits else FAIL, "" if fits else "make setup PYTHON=python3.11")]


def cpu() -> list[Row]:
    """Cores of the machine and of this process, the limit of its container, and the threads asked for."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    limit, asked = cgroup_cpus(), os.environ.get("OMP_NUM_THREADS")
    found = (
        f"{cores} cores, {usable} usable, container limit {'none' if limit is None else f'{limit:g}'}, OMP_NUM_THREADS "
    )
    found += "not set" if asked is None else asked
    most = usable if limit is None else max(1, min(usable, int(limit)))
    repair = f"export OMP_NUM_THREADS={most}"
    if asked is not None and not re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", asked):
        return [Row("processor", f"{found}, which is no number", FAIL, repair, needed=False)]
    threads = usable if asked is None else int(asked.split(",")[0])
    if threads > most:
        return [Row("processor", f"{found}: {threads} threads would share {most} cores", FAIL, repair, needed=False)]
    return [Row("processor", found, PASS, needed=False)]


def cgroup_cpus() -> float | None:
    """Processors that the container may use at a time, None without a limit."""
    limits = []
    for folder in _cgroups():
        try:
            if (folder / "cpu.max").exists():  # version 2: "quota period" or "max period"
                quota, period = (folder / "cpu.max").read_text().split()
            else:  # version 1; -1 without a limit
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
            if quota not in ("max", "-1"):
                limits.append(int(quota) / int(period))
        except (OSError, ValueError):  # no such controller here
            continue
    return min(limits, default=None)


def _cgroups() -> list[Path]:
    """Folders that may limit this process: its own groups and those around them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return []
    folders = []
    for controllers, group in (line.split(":", 2)[1:] for line in lines):
        root = Path("/sys/fs/cgroup") if not controllers else Path("/sys/fs/cgroup", controllers)
        own = root / group.strip("/")
        folders += [folder for folder in (own, *own.parents) if folder == root or root in folder.parents]
    return folders


def write_access() -> list[Row]:
    """Whether results, profiles and schedules can be written in the current folder."""
    return [
        _writable("results", Path.cwd() / "results", "name another folder with output_dir="),
        _writable("assets", Path.cwd() / "assets", "name another folder with assets_dir="),
    ]


def _writable(name: str, folder: Path, otherwise: str) -> Row:
    problem = write_problem(folder)
    if problem is None:
        return Row(f"write access: {name}", str(folder), PASS)
    return Row(f"write access: {name}", problem, FAIL, f"chown -R $(id -u) {quoted(existing(folder))}, or {otherwise}")


def write_problem(folder: Path) -> str | None:
    """Why no file can be written to `folder`, which need not exist yet; None if one can. Leaves nothing behind."""
    place = existing(folder)
    if not place.is_dir():
        return f"{place} is a file, not a folder"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
    except OSError as error:
        return f"{place}: {error.strerror}"
    return None


def existing(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def disk() -> list[Row]:
    """Free space where results, assets and temporary files go."""
    places = {"results": Path.cwd(), "temporary files": Path(tempfile.gettempdir())}
    free = {name: shutil.disk_usage(place).free for name, place in places.items()}
    found = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in free.items())
    full = [name for name, size in free.items() if size < SPACE]
    if not full:
        return [Row("disk space", f"free: {found}", PASS)]
    where = " ".join(quoted(places[name]) for name in full)
    return [
        Row("disk space", f"free: {found}; under {SPACE / 1e9:g} GB: {', '.join(full)}", FAIL, f"free space in {where}")
    ]


def git() -> list[Row]:
    """The commit, which every result names."""
    if CHECKOUT is None:
        return [
            Row("git", "results will name no commit: this project is installed, not a checkout", PASS, needed=False)
        ]
    if shutil.which("git") is None:
        return [Row("git", "results will name no commit", MISSING, "apt install git", needed=False)]
    head = _git("rev-parse", "--short=12", "HEAD")
    if head.returncode:
        dubious = "dubious ownership" in head.stderr
        repair = f"git config --global --add safe.directory {CHECKOUT}" if dubious else ""
        reason = head.stderr.strip().splitlines()[0][:200] if head.stderr.strip() else "no commit"
        state = FAIL if dubious else PASS  # an unpacked archive has none, and needs none
        return [Row("git", f"results will name no commit ({reason})", state, repair, needed=False)]
    changed = len(_git("status", "--porcelain", "--untracked-files=no").stdout.splitlines())
    found = f"commit {head.stdout.strip()}" + (f", {changed} files differ from it" if changed else "")
    return [Row("git", found, PASS, needed=False)]


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True)
