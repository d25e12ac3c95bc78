"""Runs one check in this process and writes its rows. Started by `bac_workbench.doctor.runner`."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path

from bac_workbench.doctor.rows import FAIL, Row, first_line, install_extra, system_library
from bac_workbench.doctor.runner import CHECKS


def main(name: str, result: str) -> None:
    check = CHECKS[name]
    module, function = check.function.split(":")
    try:
        rows = getattr(importlib.import_module(f"bac_workbench.doctor.{module}"), function)(*check.arguments)
    except Exception as error:  # whatever is wrong with an installation is a finding
        repair = system_library(str(error)) or (install_extra(check.extra) if isinstance(error, ImportError) else "")
        rows = [Row(check.title, first_line(error), FAIL, repair, check.needed)]
    Path(result).write_text(json.dumps([asdict(row) for row in rows]))
