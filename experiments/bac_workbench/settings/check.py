"""Checks a composed config against the schema of its command."""

from __future__ import annotations

import re
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bac_workbench.command_words import typed as typed_command
from bac_workbench.settings.kinds import Section
from bac_workbench.settings.names import SETTINGS, present_name
from bac_workbench.settings.overrides import accepts, first_line, parsed, typed_texts
from bac_workbench.settings.schema import (
    as_typed,
    field_at,
    field_problems,
    fields,
    kind_of,
    report,
    schema_of,
    section_of,
    unknown,
)
from diffusion_policy.common.config import ConfigError

REFERENCE = re.compile(r"\$\{([\w.]+)\}")
FREE = ("hydra", "sampler", "task.shape_meta")  # options below these are judged by who reads them


def check(cfg: DictConfig, command: str, overrides: list[str] | None = None) -> Any:
    """The settings of `command`, typed and immutable, if all are right: an object of the command's schema.

    Only values of settings that the schema knows are judged, and settings that were added with `+` though nothing reads
    them. Texts are as they were typed: output_dir=007 is "007".

    Args:
        cfg: composed; texts are put right in place.
        command: name of a script, such as "eval".
        overrides: the command line's; None: those that Hydra runs with, if it does.

    Raises:
        ConfigError: lists all wrong settings, each on a line with what is allowed.
    """
    if overrides is None:
        overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    typed = parsed(overrides)
    found = problems_of(cfg, command, typed, [override for override in typed if override.is_add()])
    if found:
        raise ConfigError(report(list(found.values())))
    try:
        values = all_values(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the settings cannot be worked out: {first_line(error)}") from error
    return schema_of(command).model_validate(values)


def problems_of(cfg: DictConfig, command: str, overrides: list[Override], added: list[Override]) -> dict[str, str]:
    """Name -> line that says what is wrong, of all wrong settings; puts texts in `cfg` right.

    `added`: those of `overrides` that the files have no setting for.
    """
    schema, typed = schema_of(command), typed_texts(overrides)
    problems = {**deleted(schema, overrides), **unread(cfg, schema, command, added), **under_earlier_names(cfg)}
    restore_texts(cfg, schema, typed)
    if hasattr(schema, "fits") and (misfit := schema.fits(lambda name: selected(cfg, name))):
        return {"task": misfit}
    values, unresolved = plain(cfg, schema)
    wrong = {**unresolved, **field_problems(schema, values)}
    for name in typed:
        if OmegaConf.is_missing(*parent(cfg, name)) and field_at(schema, name) is not None:
            wrong[name] = "it needs a value"
    raw = OmegaConf.to_container(cfg, resolve=False)
    for name in without_consequences(wrong, raw):
        problems[name] = line(name, typed, cfg, wrong[name])

    def value(name: str) -> Any:
        if any(name == bad or name.startswith(f"{bad}.") for bad in wrong):
            return None
        return selected(cfg, name)

    for name, message in schema.rules(value) if hasattr(schema, "rules") else ():
        problems.setdefault(name, line(name, typed, cfg, message))
    return problems


def line(name: str, typed: dict[str, str], cfg: DictConfig, message: str) -> str:
    """'eval.n_test=-1: use ...', with the value as it was typed."""
    text = as_typed(typed[name] if name in typed else selected(cfg, name))
    if message.startswith(f"{name}={text}"):
        return message
    return f"{name}={text}{'' if text else ' (nothing)'}: {message}"


def selected(cfg: DictConfig, name: str) -> Any:
    """The value of a setting, or None if there is none; groups and lists as they are, unresolved."""
    found = OmegaConf.select(cfg, name, throw_on_resolution_failure=False)
    return OmegaConf.to_container(found, resolve=False) if isinstance(found, (DictConfig, ListConfig)) else found


def parent(cfg: DictConfig, name: str) -> tuple[DictConfig, str]:
    """The node that holds `name`, and its key there; an empty one if there is none."""
    above, _, key = name.rpartition(".")
    node = OmegaConf.select(cfg, above, throw_on_resolution_failure=False) if above else cfg
    return (node if isinstance(node, DictConfig) else OmegaConf.create({})), key


def deleted(schema: type[Section], overrides: list[Override]) -> dict[str, str]:
    """Settings that were taken away with `~`. Those of the task have defaults in what the task builds."""
    names = [override.key_or_group for override in overrides if override.is_delete()]
    return {
        name: f"~{name}: this setting is needed; give it another value instead"
        for name in names
        if field_at(schema, name) is not None and not name.startswith("task.")
    }


def _is_below(name: str, group: str) -> bool:
    return name == group or name.startswith(f"{group}.")


def unread(cfg: DictConfig, schema: type[Section], command: str, added: list[Override]) -> dict[str, str]:
    """Added settings that nothing reads."""
    found = {}
    known = [name for name, _ in fields(schema)]
    for override in added:
        name = override.key_or_group
        if "@" in name or "/" in name or any(_is_below(name, free) for free in FREE) or accepts(cfg, name):
            continue
        if field_at(schema, name) is None:
            found[name] = f"{as_typed(override.input_line)}: {unknown(name, known, f'{typed_command(command)} --help')}"
        elif _is_below(name, "cache"):  # each cache reads the settings of its own file
            method = OmegaConf.select(cfg, "cache.method")
            found[name] = f"{as_typed(override.input_line)}: cache.method={method} does not read it"
    return found


def under_earlier_names(cfg: DictConfig) -> dict[str, str]:
    """Settings that a file of the user's has under the name they had earlier."""
    return {
        name: f"{name}: this setting is called {present_name(name)} now"
        for name in SETTINGS
        for node, key in [parent(cfg, name)]
        if key in node
    }


def restore_texts(cfg: DictConfig, schema: type[Section], typed: dict[str, str]) -> None:
    """Texts that Hydra reads as numbers or truth values (output_dir=20240601, 007, 1e5, true) become what was typed."""
    for name, text in typed.items():
        field = field_at(schema, name)
        kind = None if field is None else kind_of(field)
        node, key = parent(cfg, name)
        if (
            kind is None
            or not kind.text
            or key not in node
            or OmegaConf.is_missing(node, key)
            or OmegaConf.is_interpolation(node, key)
        ):
            continue
        value = node[key]
        if isinstance(value, (bool, int, float)):
            node[key] = text
        elif isinstance(value, ListConfig):
            items = [item.strip() for item in text.strip("[] ").split(",")]
            for index, item in enumerate(value):
                if isinstance(item, (bool, int, float)) and len(items) == len(value):
                    value[index] = items[index]


def plain(cfg: DictConfig, schema: type[Section], prefix: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """The values that the schema knows, nested and resolved; and what is wrong with those that cannot be resolved."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, field in schema.model_fields.items():
        if name not in cfg or OmegaConf.is_missing(cfg, name):
            continue
        try:
            value = cfg[name]
            if isinstance(value, DictConfig) and (section := section_of(field)) is not None:
                values[name], below = plain(value, section, f"{prefix}{name}.")
                problems.update(below)
            elif isinstance(value, (DictConfig, ListConfig)):
                values[name] = OmegaConf.to_container(value, resolve=True)
            else:
                values[name] = value
        except (OmegaConfBaseException, ConfigError) as error:
            # What Hydra knows of a running job is known in the job only, where this is checked again.
            if "HydraConfig was not set" not in str(error):
                problems[prefix + name] = f"it cannot be worked out: {first_line(error)}"
    return values, problems


def all_values(cfg: DictConfig) -> dict[str, Any]:
    """Everything in `cfg`, nested and resolved, also what the schema does not know; without what is missing (???)."""
    values: dict[str, Any] = {}
    for name in cfg:
        if not OmegaConf.is_missing(cfg, name):
            value = cfg[name]
            if isinstance(value, DictConfig):
                value = all_values(value)
            values[name] = OmegaConf.to_container(value, resolve=True) if isinstance(value, ListConfig) else value
    return values


def without_consequences(wrong: dict[str, str], raw: Any) -> list[str]:
    """Names of `wrong` settings but for those that take their value from another wrong one."""

    def text(name: str) -> str:
        node = raw
        for part in name.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return str(node)

    return [name for name in wrong if not any(other in wrong for other in REFERENCE.findall(text(name)))]
