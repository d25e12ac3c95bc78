"""One finding of the doctor, and the commands that repair what was found."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bac_workbench.locations import CHECKOUT, SHIPPED

NAME = "bac-workbench"  # this distribution
PASS, FAIL, MISSING = "pass", "fail", "not installed"
# Debian's package of a shared library that simulators and renderers load.
LIBRARIES = {
    "libGL.so": "libgl1",
    "libEGL.so": "libegl1 libgl1-mesa-dri",
    "libOSMesa.so": "libosmesa6",
    "libgthread-2.0.so": "libglib2.0-0",
    "libX11.so": "libx11-6",
    "libgomp.so": "libgomp1",
    "libstdc++.so": "libstdc++6",
}


@dataclass(frozen=True)
class Row:
    """A line of the report.

    Attributes:
        item: what was looked at.
        found: its version, or what is wrong.
        state: `PASS`, `FAIL` or `MISSING` (an optional part that is not installed).
        repair: the command that repairs it; empty where nothing has to be done.
        needed: a `FAIL` of this row makes the exit status 1.
    """

    item: str
    found: str
    state: str
    repair: str = ""
    needed: bool = True

    @property
    def bad(self) -> bool:
        return self.state == FAIL and self.needed


def quoted(path: str | Path, suffix: str = "") -> str:
    """A path for a command line: relative where it lies below the current folder."""
    path = Path(path)
    try:
        text = os.fspath(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # it lies elsewhere, or the current folder is gone
        text = os.fspath(path)
    return shlex.quote(text + suffix)


def pip_install(what: str) -> str:
    """The command that installs a requirement with the interpreter that runs."""
    return f"{quoted(sys.executable)} -m pip install {what}"


def installed(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pip_knows_this_project() -> bool:
    """Whether it was installed: what a build leaves in a checkout has the same metadata, but no installer."""
    try:
        return metadata.distribution(NAME).read_text("INSTALLER") is not None
    except metadata.PackageNotFoundError:
        return False


def install_extra(extra: str) -> str:
    """The command that installs what is missing of this project with one of its extras, "" for none."""
    suffix = f"[{extra}]" if extra else ""
    if CHECKOUT is not None and not pip_knows_this_project():
        return pip_install(f"-e {quoted(CHECKOUT, suffix)}")
    return pip_install(shlex.quote(f"{NAME}{suffix}"))


def restore(*folders: str) -> str:
    """The command that brings back shipped folders as they were."""
    if CHECKOUT is None:
        return pip_install(f"--force-reinstall --no-deps {NAME}=={installed(NAME)}")
    return f"git -C {quoted(SHIPPED)} checkout -- {' '.join(folders)}"


def supported_pythons() -> str:
    """Such as '>=3.11,<3.14'."""
    if CHECKOUT is None:
        return metadata.metadata(NAME)["Requires-Python"]
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^requires-python = "(.+)"$', text, re.MULTILINE).group(1)


def requirements() -> dict[str, list[str]]:
    """Extra -> its requirement lines; "" is the core. From pyproject.toml in a checkout, else as installed."""
    if CHECKOUT is None:
        return installed_requirements(metadata.requires(NAME) or [], metadata.metadata(NAME).get_all("Provides-Extra"))
    # Read without a TOML parser, which Python 3.10 lacks: the doctor says there that it is too old.
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    core = re.search(r"^dependencies = (\[.*?^\])", text, re.MULTILINE | re.DOTALL).group(1)
    extras = re.search(r"^\[project\.optional-dependencies\]$(.*?)^\[", text, re.MULTILINE | re.DOTALL).group(1)
    # A list may go over several lines, and end with a comment.
    lists = {"": core, **dict(re.findall(r"^([\w-]+) = (\[.*?\]) *(?:#[^\n]*)?$", extras, re.MULTILINE | re.DOTALL))}
    return {name: re.findall(r'"([^"]+)"', re.sub(r"#.*", "", values)) for name, values in lists.items()}


def installed_requirements(lines: list[str], extras: list[str] | None) -> dict[str, list[str]]:
    """Extra -> requirement lines, from the metadata of an installed distribution."""
    grouped: dict[str, list[str]] = {"": [], **{extra: [] for extra in extras or ()}}
    for line in lines:
        extra = re.search(r"""(?: and |; )\(?extra == ["']([\w-]+)["']\)?""", line)
        own = line if extra is None else line[: extra.start()]  # with what else it depends on, such as Python's version
        grouped[extra.group(1) if extra else ""].append(own)
    return grouped


def reinstall(extra: str) -> str:
    """The command that installs the packages of an extra anew, and only these; for the core, those that are missing."""
    if not extra:
        return install_extra("")
    return pip_install("--force-reinstall --no-deps " + " ".join(shlex.quote(line) for line in requirements()[extra]))


def first_line(error: object, limit: int = 400) -> str:
    """The first line of an error's message, after the name of its class; of a text its first line."""
    name = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
    lines = str(error).strip().splitlines()
    text = name + (lines[0] if lines else "no message")
    return text if len(text) <= limit else f"{text[:limit]}..."


def system_library(message: str) -> str | None:
    """The command that installs the shared library whose absence `message` reports, or None if it reports none."""
    match = re.search(r"(lib[\w+.-]+?\.so)[\d.]*: cannot open shared object", message)
    if match is None:
        return None
    package = LIBRARIES.get(match.group(1))
    return f"apt install {package}" if package else f"install the system library {match.group(1)}"
