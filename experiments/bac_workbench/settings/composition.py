"""Composes the config of one job and says what is wrong with its command line."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bac_workbench.command_words import typed
from bac_workbench.locations import CONFIG
from bac_workbench.settings.check import problems_of
from bac_workbench.settings.names import TASKS as EARLIER_TASKS
from bac_workbench.settings.names import present_name
from bac_workbench.settings.overrides import accepts, first_line, parsed, text_of
from bac_workbench.settings.schema import as_typed, field_at, group_problem, meant, schema_of, section_of, unknown

# How Hydra's messages name the override that cannot be composed.
NAMED = re.compile(
    r"Could not (?:override|delete|append) .*?'([^']+)'|item is already at '([^']+)'|Multiple values for ([\w.@/]+)\."
    r"|^'?([\w.@/]+)'? appears"
)
SAMPLER = re.compile(r"([a-z_+]+?)_?(\d+)$")


@contextlib.contextmanager
def config_folder() -> Iterator[None]:
    """Hydra composes from this project's configs, beside the config of a job that is running, which is put aside."""
    holder = HydraConfig.instance()
    running, holder.cfg = holder.cfg, None
    try:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            yield
    finally:
        holder.cfg = running


def job_problems(texts: list[str], command: str, config_dir: str | None) -> list[str]:
    """Everything that is wrong with one job. What cannot be composed is left out, so that the rest is checked."""
    overrides, problems = parsed(texts), []
    for override in [
        override
        for override in overrides
        if is_choice(override) and not isinstance(override.value(), (str, QuotedString))
    ]:
        options = ", ".join(sorted(path.stem for path in (CONFIG / override.key_or_group).glob("*.yaml")))
        swept = isinstance(override.value(), ChoiceSweep)
        problems.append(
            f"{as_typed(override.input_line)}: {'add -m to run once for each' if swept else f'use one of {options}'}"
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
    return compose(command, [*texts, *searchpath(config_dir)])


def searchpath(config_dir: str | None) -> list[str]:
    """The override that says what --config-dir does, with an absolute path."""
    if config_dir is None:
        return []
    folder = str(Path(config_dir).resolve()).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['file://{folder}']"]


def exists(cfg: DictConfig, name: str) -> bool:
    above, _, key = name.rpartition(".")
    node = OmegaConf.select(cfg, above, throw_on_resolution_failure=False) if above else cfg
    return isinstance(node, DictConfig) and key in node


def blame(
    error: Exception, overrides: list[Override], command: str, config_dir: str | None
) -> tuple[Override | None, str]:
    """The override that `error` is about, and a line that says what is wrong with it.

    No override if nothing can be composed.
    """
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
            return wrong, f"{name}={as_typed(value)}: add -m to run once for each value; {forms}"
    if merged := re.match(r"Error merging override (.*)", text):
        wrong = next((override for override in overrides if override.input_line == merged.group(1)), None)
        if wrong is not None:
            field = field_at(schema_of(command), wrong.key_or_group)
            is_group = field is not None and section_of(field) is not None
            problem = (
                group_problem(wrong.key_or_group, field) if is_group else "it does not fit what this setting holds"
            )
            return wrong, f"{as_typed(wrong.input_line)}: {problem}"
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
            return wrong, f"{as_typed(wrong.input_line)}: {name} is there already; leave out the +"
        if wrong is not None:
            return (
                wrong,
                f"{as_typed(wrong.input_line)}: {why_not(name, text_of(wrong), overrides, command, config_dir)}",
            )
    for override in overrides:  # the one without which the others can be composed
        others = [item.input_line for item in overrides if item is not override]
        with contextlib.suppress(HydraException, OmegaConfBaseException, ValueError):
            composed(others, command, config_dir)
            return override, f"{as_typed(override.input_line)}: {first_line(error)}"
    return None, first_line(error)


def blame_choice(error: MissingConfigException, overrides: list[Override]) -> tuple[Override | None, str]:
    """A choice that does not exist, such as cache=bca."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    wrong = next((override for override in overrides if override.key_or_group.partition("@")[0] == group), None)
    options = list(error.options or ())
    if wrong is None or not options:
        return None, first_line(error)
    line = f"{as_typed(wrong.input_line)}: use one of {', '.join(options)}{meant(name, options)}"
    if group == "task" and name in EARLIER_TASKS:
        now = EARLIER_TASKS[name]
        line = f"{as_typed(wrong.input_line)}: this task is called {now} now; use task={now}"
    sampler = SAMPLER.match(name) if group == "sampler" else None
    if sampler is not None and any(option.startswith(sampler.group(1)) for option in options):
        kind, steps = sampler.groups()
        line = (
            f"{as_typed(wrong.input_line)}: for other numbers of steps write sampler.type={kind} sampler.steps={steps}"
        )
    # Without its task a command cannot be composed.
    return (None if group == "task" else wrong), line


def why_not(name: str, value: str, overrides: list[Override], command: str, config_dir: str | None) -> str:
    """Why the setting `name`, which the composed config does not have, cannot be changed."""
    base = baseline(overrides, command, config_dir)
    group = name.partition(".")[0]
    # An earlier name is told before anything is imported: what `accepts` asks may need a simulator.
    if present_name(name) is None and accepts(base, name):
        return f"the files of this {group} leave it out; add it with +{name}={as_typed(value)}"
    if field_at(schema_of(command), name) is not None:
        chosen = next((text_of(override) for override in overrides if override.key_or_group == group), None)
        return f"{name} is no setting of this {group}" + (f" ({group}={chosen})" if chosen else "")
    if (CONFIG / name).is_dir():
        return f"{typed(command)} has no choice of {name}; {typed(command)} --help lists its settings"
    groups = sorted(path.name for path in CONFIG.iterdir() if path.is_dir() and path.name in base)
    return unknown(name, [*groups, *names(OmegaConf.to_container(base, resolve=False))], f"{typed(command)} --help")


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
