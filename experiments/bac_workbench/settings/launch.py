"""Starts a Hydra command once its whole command line, with every job of a sweep, is right; shows its help."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bac_workbench.console import readable_errors
from bac_workbench.settings.check import problems_of
from bac_workbench.settings.help import usage, wants_help
from bac_workbench.settings.names import TASKS as EARLIER_TASKS
from bac_workbench.settings.overrides import accepts, first_line, parsed, text_of, unreadable
from bac_workbench.settings.schema import (
    field_at,
    group_problem,
    kind_of,
    meant,
    report,
    schema_of,
    section_of,
    shown,
    unknown,
)
from diffusion_policy.common.config import ConfigError, register_resolvers

CONFIG = Path(__file__).resolve().parents[3] / "config"
# Options of Hydra that run nothing, or look for the config elsewhere: Hydra answers them by itself.
HYDRAS_OWN = ("hydra_help", "info", "cfg", "shell_completion", "config_path", "config_name")
# How Hydra's messages name the override that cannot be composed.
NAMED = re.compile(
    r"Could not (?:override|delete|append) .*?'([^']+)'|item is already at '([^']+)'|Multiple values for ([\w.@/]+)\."
    r"|^'?([\w.@/]+)'? appears"
)
SAMPLER = re.compile(r"([a-z_+]+?)_?(\d+)$")


def launch(main: Callable[[], None], command: str, description: str | None) -> None:
    """Runs a function decorated by `hydra.main`, unless the command line is wrong or asks for help."""
    with readable_errors():
        if wants_help(sys.argv[1:]):
            print(usage(command, description))
            return
        check_command_line(sys.argv[1:], command)
    sys.argv[1:] = with_texts_quoted(sys.argv[1:], command)
    main()


def with_texts_quoted(arguments: list[str], command: str) -> list[str]:
    """Quotes around texts of a sweep that look like numbers (output_dir=007,1e5): Hydra hands each on to its job as a number."""
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
    options, rest = get_args_parser().parse_known_args(arguments)
    if any(getattr(options, name) for name in HYDRAS_OWN):
        return
    overrides = [*options.overrides, *rest]  # rest: what starts with a dash and is no option of Hydra
    problems = [problem for text in overrides if (problem := unreadable(text, schema_of(command))) is not None]
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
    """The overrides of every job of a sweep; none for a sweeper of Hydra's plugins, whose jobs are checked when they start."""
    loader = GlobalHydra.instance().config_loader()  # it lists what glob(...) matches
    sweep = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    if any(override.key_or_group == "hydra/sweeper" for override in sweep):
        return []
    return [list(job) for batch in BasicSweeper.split_arguments(sweep, None) for job in batch]


@contextlib.contextmanager
def config_folder() -> Iterator[None]:
    """Hydra composes from this project's configs. The config of a job that is running is put aside: it is not the one composed."""
    holder = HydraConfig.instance()
    running, holder.cfg = holder.cfg, None
    try:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            yield
    finally:
        holder.cfg = running


def job_problems(texts: list[str], command: str, config_dir: str | None) -> list[str]:
    """Everything that is wrong with one job. What cannot be composed is left out, so that the rest is checked as well."""
    overrides, problems = parsed(texts), []
    for override in [
        override
        for override in overrides
        if is_choice(override) and not isinstance(override.value(), (str, QuotedString))
    ]:
        options = ", ".join(sorted(path.stem for path in (CONFIG / override.key_or_group).glob("*.yaml")))
        swept = isinstance(override.value(), ChoiceSweep)
        problems.append(
            f"{shown(override.input_line)}: {'add -m to run once for each' if swept else f'use one of {options}'}"
        )
        overrides.remove(override)
        if override.key_or_group == "task":  # nothing can be composed without it
            return problems
    while True:
        try:
            cfg = composed([override.input_line for override in overrides], command, config_dir)
            break
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            wrong, problem = blame(error, overrides, command, config_dir)
            problems.append(problem)
            if wrong is None:
                return problems
            overrides.remove(wrong)
    base = baseline(overrides, command, config_dir) if any(override.is_force_add() for override in overrides) else cfg
    # ++name=value changes a setting, or adds one that nobody may read.
    added = [
        override
        for override in overrides
        if override.is_add() or override.is_force_add() and not exists(base, override.key_or_group)
    ]
    return problems + list(problems_of(cfg, command, overrides, added).values())


def is_choice(override: Override) -> bool:
    return not override.is_delete() and override.key_or_group in {
        path.name for path in CONFIG.iterdir() if path.is_dir()
    }


def composed(texts: list[str], command: str, config_dir: str | None) -> DictConfig:
    if config_dir is not None:
        folder = str(Path(config_dir).resolve()).replace("\\", "\\\\").replace("'", "\\'")
        texts = [*texts, f"hydra.searchpath=['file://{folder}']"]
    return compose(command, texts)


def exists(cfg: DictConfig, name: str) -> bool:
    above, _, key = name.rpartition(".")
    node = OmegaConf.select(cfg, above, throw_on_resolution_failure=False) if above else cfg
    return isinstance(node, DictConfig) and key in node


def blame(
    error: Exception, overrides: list[Override], command: str, config_dir: str | None
) -> tuple[Override | None, str]:
    """The override that `error` is about, and a line that says what is wrong with it; no override if nothing can be composed."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return blame_choice(error, overrides)
    if missing := re.match(r"You must specify '([\w/]+)'", text):
        options = [option.strip() for option in text.splitlines()[2:]]
        return None, f"{missing.group(1)} is missing: add {missing.group(1)}= and one of {', '.join(options)}"
    if ambiguous := re.match(r"Ambiguous value for argument '(.*)'$", text.splitlines()[0]):
        wrong = next((override for override in overrides if override.input_line == ambiguous.group(1)), None)
        if wrong is not None:
            name, value = wrong.key_or_group, text_of(wrong)
            forms = f"a list is {name}=[{value}], a text '{name}=\"{value}\"'"
            return wrong, f"{name}={shown(value)}: add -m to run once for each value; {forms}"
    if merged := re.match(r"Error merging override (.*)", text):
        wrong = next((override for override in overrides if override.input_line == merged.group(1)), None)
        if wrong is not None:
            field = field_at(schema_of(command), wrong.key_or_group)
            is_group = field is not None and section_of(field) is not None
            problem = (
                group_problem(wrong.key_or_group, field) if is_group else "it does not fit what this setting holds"
            )
            return wrong, f"{shown(wrong.input_line)}: {problem}"
    if named := NAMED.search(text):
        name = next(group for group in named.groups() if group)
        wrong = next(
            (
                override
                for override in overrides
                if override.get_key_element().lstrip("+~") == name or override.key_or_group == name
            ),
            None,
        )
        if wrong is not None and wrong.is_add():
            return wrong, f"{shown(wrong.input_line)}: {name} is there already; leave out the +"
        if wrong is not None:
            return wrong, f"{shown(wrong.input_line)}: {why_not(name, text_of(wrong), overrides, command, config_dir)}"
    for override in overrides:  # the one without which the others can be composed
        others = [item.input_line for item in overrides if item is not override]
        with contextlib.suppress(HydraException, OmegaConfBaseException, ValueError):
            composed(others, command, config_dir)
            return override, f"{shown(override.input_line)}: {first_line(error)}"
    return None, first_line(error)


def blame_choice(error: MissingConfigException, overrides: list[Override]) -> tuple[Override | None, str]:
    """A choice that does not exist, such as cache=bca."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    wrong = next((override for override in overrides if override.key_or_group.partition("@")[0] == group), None)
    options = list(error.options or ())
    if wrong is None or not options:
        return None, first_line(error)
    line = f"{shown(wrong.input_line)}: use one of {', '.join(options)}{meant(name, options)}"
    if group == "task" and name in EARLIER_TASKS:
        line = (
            f"{shown(wrong.input_line)}: this task is called {EARLIER_TASKS[name]} now; use task={EARLIER_TASKS[name]}"
        )
    sampler = SAMPLER.match(name) if group == "sampler" else None
    if sampler is not None and any(option.startswith(sampler.group(1)) for option in options):
        kind, steps = sampler.groups()
        line = f"{shown(wrong.input_line)}: for other numbers of steps write sampler.type={kind} sampler.steps={steps}"
    # Without its task a command cannot be composed.
    return (None if group == "task" else wrong), line


def why_not(name: str, value: str, overrides: list[Override], command: str, config_dir: str | None) -> str:
    """Why the setting `name`, which the composed config does not have, cannot be changed."""
    base = baseline(overrides, command, config_dir)
    group = name.partition(".")[0]
    if accepts(base, name):
        return f"the files of this {group} leave it out; add it with +{name}={shown(value)}"
    if field_at(schema_of(command), name) is not None:
        chosen = next((text_of(override) for override in overrides if override.key_or_group == group), None)
        return f"{name} is no setting of this {group}" + (f" ({group}={chosen})" if chosen else "")
    if (CONFIG / name).is_dir():
        return f"{command} has no choice of {name}; python scripts/{command}.py --help lists its settings"
    groups = sorted(path.name for path in CONFIG.iterdir() if path.is_dir() and path.name in base)
    return unknown(
        name, [*groups, *names(OmegaConf.to_container(base, resolve=False))], f"python scripts/{command}.py --help"
    )


def baseline(overrides: list[Override], command: str, config_dir: str | None) -> DictConfig:
    """The config with the choices (task, cache, ...) among `overrides` alone, as far as they exist."""
    choices = [override for override in overrides if is_choice(override)]
    choices.sort(key=lambda override: override.key_or_group != "task")  # nothing can be composed without it
    return first_composed(tuple(override.input_line for override in choices), command, config_dir)


@functools.lru_cache
def first_composed(choices: tuple[str, ...], command: str, config_dir: str | None) -> DictConfig:
    """The config with all `choices`, or without the later ones that do not exist."""
    with contextlib.suppress(HydraException, OmegaConfBaseException):
        return composed([*choices], command, config_dir)
    taken: list[str] = []
    for choice in choices:
        with contextlib.suppress(HydraException, OmegaConfBaseException):
            composed([*taken, choice], command, config_dir)
            taken.append(choice)
    return composed(taken, command, config_dir)


def names(values: dict, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from names(value, f"{prefix}{name}.")
        elif name != "_target_":
            yield f"{prefix}{name}"
