"""What was typed on the command line, in Hydra's grammar."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from bac_workbench.settings.kinds import Section
from bac_workbench.settings.schema import as_typed, field_at, kind_of, meant
from diffusion_policy.common.config import ConfigError

_SPACES = re.compile(r"[\s\"']")


def parsed(overrides: list[str]) -> list[Override]:
    """Raises HydraException where one cannot be read; see `unreadable`."""
    return OverridesParser.create().parse_overrides(overrides)


def text_of(override: Override) -> str:
    """What follows the first `=`, letter by letter."""
    return (override.input_line or "").partition("=")[2].strip()


def typed_texts(overrides: list[Override]) -> dict[str, str]:
    """Name -> text of its value; the last one counts, as for Hydra."""
    return {override.key_or_group: text_of(override) for override in overrides if not override.is_delete()}


def unreadable(text: str, schema: type[Section]) -> str | None:
    """What is wrong with the form of one override, and the form that works; None if Hydra can read it."""
    key, equals, value = text.partition("=")
    if text.startswith("-"):
        setting = text.lstrip("-") if equals else f"{text.lstrip('-')}=..."
        return f"{as_typed(text)}: settings are written without dashes, {setting}"
    if not equals and not text.startswith("~"):
        example = text if text.isidentifier() else "pusht_lowdim"
        return f"{as_typed(text)}: write it as <setting>=<value>, such as task={example}"
    if not key.strip("+~ "):
        return f"{as_typed(text)}: name a setting before the ="
    if any(character in key for character in " \t\"'"):
        name = as_typed(re.sub(_SPACES, "", key))
        return f"{as_typed(text)}: write it without spaces or quotes in the name, {name}={as_typed(value.strip())}"
    try:
        parsed([text])
    except HydraException as error:
        field = field_at(schema, key.lstrip("+~"))
        kind = None if field is None else kind_of(field)
        if kind is not None and not kind.text:
            return f"{as_typed(text)}: use {kind.allowed.format(name=key)}{meant(value, kind.choices)}"
        if value[:1] in ("'", '"') and value.count(value[0]) == 1:
            return f"{as_typed(text)}: a quote is opened and not closed"
        quoted = quote(key, os.path.expanduser(value))  # a shell leaves ~ as it is after a =
        if quoted is not None:
            return f"{as_typed(text)}: Hydra needs quotes around this value; paste\n    {quoted}"
        return f"{as_typed(text)} cannot be read: {first_line(error)}"
    return None


def quote(key: str, value: str) -> str | None:
    """`key=value` for a shell, with the quotes that Hydra needs; None if that cannot be read either."""
    bare = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    text = f'{key}="' + bare.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        (override,) = parsed([text])
    except HydraException:
        return None
    return shlex.quote(text) if override.value() == bare else None


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("See https")]
    if len(lines) > 1 and lines[0].startswith("Error parsing override"):
        lines = lines[1:]
    return lines[0] if lines else type(error).__name__


def accepts(cfg: DictConfig, key: str) -> bool:
    """Whether something that `cfg` builds takes the setting `key`, which its files do not have.

    The nearest `_target_` above decides by its signature; what is deeper inside one of its arguments is the affair of
    the target.
    """
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        node: Any = OmegaConf.select(cfg, ".".join(parts[:depth]), throw_on_resolution_failure=False)
        if not isinstance(node, DictConfig):
            continue
        if "_target_" in node:
            try:
                target = get_object(node._target_)
            except ImportError as error:  # an extra that is not installed: what it takes cannot be told
                raise ConfigError(f"{key} cannot be checked: {error.__cause__ or error}") from error
            parameters = inspect.signature(target).parameters
            return parts[depth] in parameters or any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    return False
