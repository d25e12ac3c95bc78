"""Every value of every command is checked before a policy is loaded or a file is written."""
from experiments.settings.arguments import read_arguments, read_positional
from experiments.settings.check import check
from experiments.settings.help import wants_help
from experiments.settings.launch import launch
from experiments.settings.schema import meant

__all__ = ["check", "launch", "meant", "read_arguments", "read_positional", "wants_help"]
