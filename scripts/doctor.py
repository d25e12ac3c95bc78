"""Check this installation and machine, and name the command that repairs what does not work.

    python scripts/doctor.py                       everything, from any folder, in under a minute
    python scripts/doctor.py only=torch,kitchen    some of the checks
    python scripts/doctor.py --json                rows for programs

Settings: json=false (the same as --json); timeout=60, seconds for each check; only=<checks>, separated by commas:
{checks}.

Every check runs in a process of its own: one that crashes or hangs is a row of the table and hides none of the others. An optional
part that is absent is "not installed", with the command that installs it. Exit status: 0 when all that is needed works, 1 when
something that is needed fails, 2 when the arguments are wrong. A package in another version than the pinned one is shown as a
failure that is not needed: what does not work with it fails its own check.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("", "experiments")]

# Nothing but Python itself is imported here: what is broken must not break the doctor.
from bac_workbench.doctor.report import as_json, show  # noqa: E402
from bac_workbench.doctor.runner import CHECKS, TIME_LIMIT, run_checks  # noqa: E402


class UsageError(ValueError):
    """The arguments are wrong; the message says what to use."""


def settings(arguments: list[str]) -> tuple[list[str], float, bool]:
    """(names of the checks, seconds for each, whether to print JSON) from key=value arguments."""
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = ("json", "=", "true") if argument == "--json" else argument.partition("=")
        if not equals or key not in ("only", "timeout", "json"):
            raise UsageError(f"unknown argument {argument!r}: use only=, timeout= or json=; --help tells more")
        if key in given:
            raise UsageError(f"{key}= is given twice")
        given[key] = value
    names = [name.strip() for name in given["only"].strip("[]").split(",")] if "only" in given else list(CHECKS)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise UsageError(f"only={given['only']}: there is no check {unknown[0]!r}; use {', '.join(CHECKS)}")
    try:
        limit = float(given.get("timeout", TIME_LIMIT))
    except ValueError:
        limit = float("nan")
    if not 0 < limit < 1e6:
        raise UsageError(f"timeout={given['timeout']}: use a number of seconds above 0")
    if given.get("json", "false") not in ("true", "false"):
        raise UsageError(f"json={given['json']}: use json=true or json=false")
    return [name for name in CHECKS if name in names], limit, given.get("json") == "true"


def progress(name: str | None) -> None:
    """Names the check that has ended on a line of its own in a terminal; None clears that line."""
    if sys.stderr.isatty():
        print("\r\033[K" + ("" if name is None else f"checked {name}"), end="", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(__doc__.format(checks=", ".join(CHECKS)))
        return 0
    try:
        names, limit, json = settings(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        rows = run_checks(names, limit, progress)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        progress(None)
    seconds = time.monotonic() - started
    if json:
        print(as_json(rows, seconds))
    else:
        show(rows, seconds)
    return 1 if any(row.bad for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
