"""Arguments of the commands that do without Hydra: key=value pairs, or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic.fields import FieldInfo
from yaml import YAMLError

from bac_workbench.command_words import typed
from bac_workbench.settings.kinds import Section
from bac_workbench.settings.schema import as_typed, field_at, field_problems, kind_of, report, schema_of, unknown
from diffusion_policy.common.config import ConfigError


def read_arguments(arguments: list[str], command: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """The arguments of one of this project's commands; see `read_settings`."""
    return read_settings(arguments, schema_of(command), defaults, f"{typed(command)} --help")


def read_settings(
    arguments: list[str], schema: type[Section], defaults: dict[str, Any], help_command: str
) -> dict[str, Any]:
    """`defaults` with the key=value arguments.

    A default of None that null may not replace has to be given. A SHA-256 is in lower case.

    Args:
        help_command: what lists the settings, named in messages.

    Raises:
        ConfigError: lists all arguments that are unreadable, unknown, wrong or missing.
    """
    values, typed_texts = dict(defaults), {}
    problems: dict[str, str] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or name.startswith("-"):
            problems[argument] = f"{as_typed(argument)}: arguments have the form key=value; {help_command} lists them"
            continue
        field = field_at(schema, name)
        if field is None or name not in defaults:
            problems[name] = f"{as_typed(argument)}: {unknown(name, list(defaults), help_command)}"
            continue
        typed_texts[name] = text
        values[name] = _value(text, field)
    for name, message in field_problems(schema, {name: values[name] for name in typed_texts}).items():
        problems[name] = f"{name}={as_typed(typed_texts[name])}: {message}"
    for name, default in defaults.items():
        kind = kind_of(field_at(schema, name))
        if default is None and not kind.null and name not in typed_texts:
            problems[name] = f"{name}=<{kind.allowed.removeprefix('a ')}> is missing; {help_command} shows examples"
    if problems:
        raise ConfigError(report(list(problems.values())))
    if values.get("sha256") is not None:
        values["sha256"] = values["sha256"].lower()
    return values


def _value(text: str, field: FieldInfo) -> Any:
    """A text, or a list of texts, as it was typed; else a number, truth value, list or null as OmegaConf reads it.

    What OmegaConf cannot read stays a text, which the schema then refuses.
    """
    kind = kind_of(field)
    if kind.text and kind.allowed.startswith("a list") and text[:1] == "[" and text[-1:] == "]":
        return [item.strip() for item in text[1:-1].split(",")] if text[1:-1].strip() else []
    if kind.text:
        return None if text == "null" else text
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except (OmegaConfBaseException, YAMLError):
        return text


def read_positional(arguments: list[str], command: str, names: tuple[str, ...], optional: int = 0) -> list[str]:
    """The arguments of a command that takes `names`, of which the last `optional` may be left out.

    Raises:
        ConfigError: more or fewer, an empty one, or an option.
    """
    needed = len(names) - optional
    usage = " ".join([f"usage: {typed(command)}", *names[:needed], *(f"[{name}]" for name in names[needed:])])
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"{as_typed(argument)}: there is no such option\n{usage}")
    if not needed <= len(arguments) <= len(names) or not all(argument.strip() for argument in arguments):
        got = f", not {as_typed(' '.join(arguments))}" if any(argument.strip() for argument in arguments) else ""
        raise ConfigError(f"{command} takes {' and '.join(names[:needed]) if names else 'no arguments'}{got}\n{usage}")
    return list(arguments)


def split_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Names, such as of a folder, and key=value settings. A folder's name may have an equals sign."""
    settings = [item for item in arguments if "=" in item and not item.startswith("-") and not Path(item).exists()]
    return [item for item in arguments if item not in settings], settings
