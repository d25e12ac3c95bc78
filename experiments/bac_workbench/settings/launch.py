"""Starts a Hydra command once its whole command line, with every job of a sweep, is right; shows its help."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from omegaconf import DictConfig

from bac_workbench.console import readable_errors
from bac_workbench.locations import CONFIG
from bac_workbench.settings.composition import config_folder, job_problems, searchpath
from bac_workbench.settings.help import usage, wants_help
from bac_workbench.settings.launcher import launcher_problems
from bac_workbench.settings.overrides import parsed, text_of, unreadable
from bac_workbench.settings.recordings import with_task
from bac_workbench.settings.schema import (
    field_at,
    kind_of,
    report,
    schema_of,
    section_of,
)
from bac_workbench.sweeps.report import tell
from bac_workbench.sweeps.sweep import Interrupted, Sweep
from diffusion_policy.common.config import ConfigError, register_resolvers

# Options of Hydra that run nothing, or look for the config elsewhere: Hydra answers them by itself.
HYDRAS_OWN = ("hydra_help", "info", "cfg", "shell_completion", "config_path", "config_name")


def launch(job: Callable[[DictConfig], Any], command: str, description: str | None) -> None:
    """Runs `job` with what Hydra composed, once or, with -m, for each cell of a sweep. It calls `check` first.

    Nothing runs if the command line is wrong in any of them, or asks for help.

    Args:
        job: may return what a sweep says of it, see `sweeps.cell.Ended`.
        command: name of the schema and of the file in config/.
        description: the first part of the help.
    """
    with readable_errors():
        if wants_help(sys.argv[1:]):
            print(usage(command, description))
            return
        sys.argv[1:] = with_task(sys.argv[1:], command)
        check_command_line(sys.argv[1:], command)
        arguments = with_texts_quoted(sys.argv[1:], command)
        if is_sweep(arguments):
            sys.exit(run_sweep(job, command, arguments))

    @functools.wraps(job)  # Hydra names a job after the file that its function is in
    def checked(cfg: DictConfig) -> None:
        register_resolvers()  # a sweep may run its jobs in processes of their own
        with readable_errors():
            job(cfg)

    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path=str(CONFIG), config_name=command)(checked)()


def is_sweep(arguments: list[str]) -> bool:
    """Whether these are cells for a launcher of Hydra, and no sweeper of its plugins or question to Hydra."""
    options, rest = get_args_parser().parse_known_args(arguments)
    foreign = any(override.key_or_group == "hydra/sweeper" for override in parsed([*options.overrides, *rest]))
    return options.multirun and not foreign and not any(getattr(options, name) for name in HYDRAS_OWN)


def run_sweep(job: Callable[[DictConfig], Any], command: str, arguments: list[str]) -> int:
    """Runs every cell; returns the exit status, 0 if all have finished."""
    options, rest = get_args_parser().parse_known_args(arguments)
    overrides = [*options.overrides, *rest, *searchpath(options.config_dir)]
    with config_folder():
        hydra = GlobalHydra.instance().hydra
        sweep = Sweep.over(hydra, command, jobs_of(overrides), job)
        try:
            outcomes, records = sweep.run()
        except Interrupted as interrupted:
            tell(sweep.names, interrupted.outcomes, None)
            return 130
    complete = tell(sweep.names, outcomes, records)
    if complete:
        records.remove()
    return 0 if complete else 1


def with_texts_quoted(arguments: list[str], command: str) -> list[str]:
    """Puts quotes around texts of a sweep that look like numbers, such as output_dir=007,1e5.

    Hydra would hand each on to its job as a number.
    """
    schema = schema_of(command)

    def quoted(argument: str) -> str:
        field = field_at(schema, argument.partition("=")[0])
        if field is None or section_of(field) is not None or not kind_of(field).text or "," not in argument:
            return argument
        (override,) = parsed([argument])
        sweep, items = override.value(), text_of(override).split(",")
        if not isinstance(sweep, ChoiceSweep) or not sweep.simple_form or len(items) != len(sweep.list):
            return argument
        texts = [
            f"'{item.strip()}'" if isinstance(value, (bool, int, float)) else item
            for item, value in zip(items, sweep.list)
        ]
        return f"{override.key_or_group}={','.join(texts)}"

    return [quoted(argument) for argument in arguments]


def check_command_line(arguments: list[str], command: str) -> None:
    """Composes every job that `arguments` ask for, and checks all of them.

    Raises:
        ConfigError: lists all wrong settings of all jobs.
    """
    register_resolvers()
    options, rest = get_args_parser().parse_known_args(with_task(arguments, command))
    if any(getattr(options, name) for name in HYDRAS_OWN):
        return
    overrides = [*options.overrides, *rest]  # rest: what starts with a dash and is no option of Hydra
    problems = [problem for text in overrides if (problem := unreadable(text, schema_of(command))) is not None]
    if problems:
        raise ConfigError(report(problems))
    schema = schema_of(command)
    if "launcher" in schema.model_fields:
        problems = list(launcher_problems(parsed(overrides), command, options.multirun))
    if problems:
        raise ConfigError(report(problems))
    if options.config_dir is not None and not Path(options.config_dir).is_dir():
        raise ConfigError(f"--config-dir {options.config_dir}: there is no such folder")
    with config_folder():
        for job in jobs_of(overrides) if options.multirun else [overrides]:
            problems += [
                problem for problem in job_problems(job, command, options.config_dir) if problem not in problems
            ]
    if problems:
        raise ConfigError(report(problems))


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The overrides of every job of a sweep.

    None for a sweeper of Hydra's plugins, whose jobs are checked when they start.
    """
    loader = GlobalHydra.instance().config_loader()  # it lists what glob(...) matches
    sweep = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    if any(override.key_or_group == "hydra/sweeper" for override in sweep):
        return []
    for override in sweep:
        if override.is_hydra_override() and override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: Hydra's own settings are the same for all cells")
    return [list(job) for batch in BasicSweeper.split_arguments(sweep, None) for job in batch]
