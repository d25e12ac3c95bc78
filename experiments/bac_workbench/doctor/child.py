"""Runs one check in this process and writes its rows: python child.py CHECK RESULT_FILE. Started by `bac_workbench.doctor.runner`."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path[:1] = [
    str(Path(__file__).resolve().parents[n]) for n in (2, 3)
]  # this project, and not the folder of this file

from bac_workbench.doctor.rows import FAIL, Row, first_line, install_extra, system_library  # noqa: E402
from bac_workbench.doctor.runner import CHECKS  # noqa: E402


def main(name: str, result: str) -> None:
    check = CHECKS[name]
    module, function = check.function.split(":")
    try:
        rows = getattr(importlib.import_module(f"bac_workbench.doctor.{module}"), function)(*check.arguments)
    except Exception as error:  # whatever is wrong with an installation is a finding
        repair = system_library(str(error)) or (install_extra(check.extra) if isinstance(error, ImportError) else "")
        rows = [Row(check.title, first_line(error), FAIL, repair, check.needed)]
    Path(result).write_text(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main(*sys.argv[1:])
