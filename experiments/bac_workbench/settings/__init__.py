"""Every value of every command is checked before a policy is loaded or a file is written."""

from bac_workbench.settings.arguments import read_arguments, read_positional, read_settings, split_settings
from bac_workbench.settings.check import check
from bac_workbench.settings.help import wants_help
from bac_workbench.settings.launch import launch
from bac_workbench.settings.schema import meant

__all__ = [
    "check",
    "launch",
    "meant",
    "read_arguments",
    "read_positional",
    "read_settings",
    "split_settings",
    "wants_help",
]
