"""Whether the pinned versions can be installed together on every supported Python: python scripts/check_pins.py [3.13]

Asks pip's index for wheels, with the dependencies of every package, and installs nothing. Packages that are published
as sources alone are built here first where any Python can use the result, and are named where that takes a compiler.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
# Published as sources only; plain Python, so that one wheel serves all versions.
BUILT_HERE = ("antlr4-python3-runtime==4.9.3",)  # of hydra-core
# Needs a compiler on these: users of the extra are told so.
FROM_SOURCES = {"pybullet": ("3.12", "3.13")}
# For one test, of packages that are built from sources.
LEFT_OUT = ("robomimic-reference",)


def pins() -> list[str]:
    """Every pinned requirement of the workbench and its extras."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    lines = [*pyproject["tool"]["bac-workbench"]["dependencies"]]
    lines += [line for extra, listed in extras.items() if extra not in LEFT_OUT for line in listed]
    return list(dict.fromkeys(line for line in lines if not line.startswith("bac-")))


def of_python(python: str, lines: list[str]) -> list[str]:
    """The requirements that count on this Python. pip would judge them by the Python that runs it."""
    requirements = [Requirement(line) for line in lines]
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    chosen = [item for item in requirements if item.marker is None or item.marker.evaluate(environment)]
    return [f"{item.name}{item.specifier}" for item in chosen]


def resolve(python: str, requirements: list[str], wheels: Path) -> str | None:
    """What pip says against these requirements on this Python; None if it finds all of them and what they need."""
    with tempfile.TemporaryDirectory() as target:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary=:all:", f"--python-version={python}", f"--target={target}"]
        done = subprocess.run([*command, f"--find-links={wheels}", *requirements], capture_output=True, text=True)
    if done.returncode == 0:
        return None
    errors = [
        line for line in done.stderr.splitlines() if re.match(r"ERROR|\s+The user requested|\s+\S+ depends", line)
    ]
    return "\n    ".join(errors or done.stderr.strip().splitlines()[-5:])


def main(pythons: list[str]) -> int:
    failed = False
    with tempfile.TemporaryDirectory() as wheels:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, *BUILT_HERE]
        subprocess.run(build, check=True, stderr=subprocess.DEVNULL)
        for python in pythons:
            requirements = of_python(python, pins())
            compiled = [line for line in requirements if python in FROM_SOURCES.get(line.partition("==")[0], ())]
            problem = resolve(python, [line for line in requirements if line not in compiled], Path(wheels))
            failed |= problem is not None
            note = f"; from sources: {', '.join(compiled)}" if compiled else ""
            count = len(requirements) - len(compiled)
            print(f"Python {python}: {count} pins {'resolve' if problem is None else 'do not resolve'}{note}")
            if problem is not None:
                print(f"    {problem}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PYTHONS)))
