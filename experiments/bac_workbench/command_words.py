"""How the commands are typed. Messages and --help pages name them so, whether `bac` or a script was started."""

from __future__ import annotations

#: name of the schema and of the configuration -> words after `bac`
WORDS = {
    "demo": "demo",
    "eval": "eval",
    "compare": "compare",
    "dashboard": "dashboard",
    "check": "check",
    "report": "report",
    "reproduce": "reproduce",
    "tune": "tune",
    "profile_blocks": "profile",
    "figures": "figures",
    "stability": "stability",
    "calibrate": "calibrate",
    "benchmark": "benchmark",
    "serve": "serve",
    "train": "train",
    "make_demos": "demos",
    "collect": "collect",
    "inspect_data": "data inspect",
    "download_data": "data download",
    "convert_actions": "data convert-actions",
    "download_checkpoint": "checkpoint download",
    "convert_checkpoint": "checkpoint convert",
    "push_checkpoint": "checkpoint push",
    "doctor": "doctor",
    "build": "build",
}


def typed(command: str) -> str:
    """'profile_blocks' -> 'bac profile'."""
    return f"bac {WORDS[command]}"
