"""The pinned versions of pyproject.toml against what is installed."""

from __future__ import annotations

import shlex

from bac_workbench.doctor.rows import (
    FAIL,
    MISSING,
    NAME,
    PASS,
    Row,
    install_extra,
    installed,
    pip_install,
    requirements,
)


def packages() -> list[Row]:
    """A row for the core, one for each extra, and one for each package in another version than the pinned one.

    Another version does not make the exit status 1: what does not work with it fails its own check.
    """
    from packaging.requirements import Requirement

    rows, differing = [], {}
    for extra, lines in requirements().items():
        wanted = [
            item
            for item in map(Requirement, lines)
            if item.name != NAME and (item.marker is None or item.marker.evaluate())
        ]
        if not wanted:
            continue
        versions = {item: installed(item.name) for item in wanted}
        absent = [item.name for item, version in versions.items() if version is None]
        wrong = {
            item: version for item, version in versions.items() if version is not None and version not in item.specifier
        }
        differing.update({str(item): (item, version) for item, version in wrong.items()})
        title = f"packages: extra {extra}" if extra else "packages: core"
        if absent:
            found = f"{', '.join(absent)} not installed" if len(absent) < len(wanted) else ", ".join(absent)
            rows.append(Row(title, found, MISSING if extra else FAIL, install_extra(extra), needed=not extra))
        else:
            as_pinned = len(wanted) - len(wrong)
            rows.append(Row(title, f"{as_pinned} of {len(wanted)} as pinned", PASS))
    for item, version in differing.values():
        rows.append(
            Row(
                f"version of {item.name}",
                f"{version}, pinned is {item.specifier}",
                FAIL,
                pip_install(shlex.quote(f"{item.name}{item.specifier}")),
                needed=False,
            )
        )
    return rows
