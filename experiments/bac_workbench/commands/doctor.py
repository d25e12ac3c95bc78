"""Check this installation and machine, and name the command that repairs what does not work.

    bac doctor                       everything, from any folder, in under a minute
    bac doctor only=torch,kitchen    some of the checks
    bac doctor --json                rows for programs

Settings: json=false (the same as --json); timeout=60, seconds for each check; only=<checks>, separated by commas:
{checks}.

Every check runs in a process of its own: one that crashes or hangs is a row of the table and hides none of the
others. An optional part that is absent is "not installed", with the command that installs it. Exit status: 0
when all that is needed works, 1 when something that is needed fails, 2 when the arguments are wrong. A package
in another version than the pinned one is shown as a failure that is not needed: what does not work with it
fails its own check.
"""

from __future__ import annotations

import sys
import time

# Nothing but Python itself is imported here: what is broken must not break the doctor.
from bac_workbench.doctor.report import as_json, show
from bac_workbench.doctor.runner import CHECKS, TIME_LIMIT, run_checks


class UsageError(ValueError):
    """The arguments are wrong; the message says what to use."""


def settings(arguments: list[str]) -> tuple[list[str], float, bool]:
    """(names of the checks, seconds for each, whether to print JSON) from key=value arguments."""
    texts: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = ("json", "=", "true") if argument == "--json" else argument.partition("=")
        if not equals or key not in ("only", "timeout", "json"):
            raise UsageError(f"unknown argument {argument!r}: use only=, timeout= or json=; --help tells more")
        if key in texts:
            raise UsageError(f"{key}= is given twice")
        texts[key] = value
    names = [name.strip() for name in texts["only"].strip("[]").split(",")] if "only" in texts else list(CHECKS)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise UsageError(f"only={texts['only']}: there is no check {unknown[0]!r}; use {', '.join(CHECKS)}")
    try:
        limit = float(texts.get("timeout", TIME_LIMIT))
    except ValueError:
        limit = float("nan")
    if not 0 < limit < 1e6:
        raise UsageError(f"timeout={texts['timeout']}: use a number of seconds above 0")
    if texts.get("json", "false") not in ("true", "false"):
        raise UsageError(f"json={texts['json']}: use json=true or json=false")
    return [name for name in CHECKS if name in names], limit, texts.get("json") == "true"


def progress(name: str | None) -> None:
    """Names the check that has ended on a line of its own in a terminal; None clears that line."""
    if sys.stderr.isatty():
        print("\r\033[K" + ("" if name is None else f"checked {name}"), end="", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
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
