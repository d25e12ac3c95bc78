"""Reads a config of somebody else: YAML within limits, interpolations without anything but arithmetic.

A few hundred bytes of nested aliases, or of `x1: ${x0}${x0}`, describe more than any memory holds; both are counted
while they unfold.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import (
    get_yaml_loader,  # what OmegaConf.load reads with; the rest of it parses every interpolation
)

from diffusion_policy.common.config import CheckpointError, ConfigError, arithmetic

_MAX_BYTES = 256 * 1024  # of a config file; this project's and the original's have 3 to 10 kB
_MAX_NODES = 20_000  # entries, aliases and interpolations unfolded
_MAX_DEPTH = 50  # of nested entries, and of interpolations that lead to one another
_MAX_TEXT = 100_000  # characters of one text that interpolations make
_INNERMOST = re.compile(r"\$\{([^${}]*)\}")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; interpolations stay text.

    Raises:
        CheckpointError: it is too large, unfolds to too much, or is no YAML.
    """
    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise CheckpointError(f"{path} has more than {_MAX_BYTES} bytes: it is not the config of a policy")
    try:
        text = data.decode("utf-8")
        _check_size(text, path)
        config = yaml.load(text, Loader=get_yaml_loader())
        _check_values(config)
        return config
    except CheckpointError:
        raise
    except Exception as error:  # numbers, keys and texts that YAML cannot make anything of raise all kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise CheckpointError(f"{path} is not a readable YAML config ({reason}): get the folder again") from error


def _check_size(text: str, path: Path) -> None:
    """Counts what aliases unfold to and how deep it is nested, before anything is made."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, entries before it
    entries = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            alias = event.anchor or ""
            if alias not in sizes:
                raise CheckpointError(f"{path}: the alias *{alias[:50]} is unknown, or inside of what it stands for")
            entries += sizes[alias]
        elif isinstance(event, yaml.ScalarEvent):
            entries += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, entries))
            entries += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = entries - before
        if entries > _MAX_NODES or len(open_nodes) > _MAX_DEPTH:
            raise CheckpointError(
                f"{path} has more than {_MAX_NODES} entries or {_MAX_DEPTH} levels: it is not the config of a policy"
            )


def _check_values(node: Any) -> None:
    """Whether all values are such as a config has."""
    if isinstance(node, dict):
        for key, value in node.items():
            _check_values(key)
            _check_values(value)
    elif isinstance(node, list):
        for value in node:
            _check_values(value)
    elif type(node) is int and abs(node) >= 2**64:
        raise ValueError("a number has too many digits")
    elif not (node is None or isinstance(node, (bool, int, float, str))):
        raise ValueError(f"it holds a {type(node).__name__}")


def resolve(root: dict[str, Any], key: str) -> Any:
    """`root[key]` with every interpolation replaced, as OmegaConf does it.

    `${a.b}` (from the top), `${.a}`, `${..a}` (from where it stands) and `${eval:'...'}` are known; the latter is
    `arithmetic`. Texts that call anything else stay text, with `{` for `${`: `${oc.env:...}` would copy environment
    variables into results, and originals use `${now:...}` outside of the policy.

    Raises:
        CheckpointError: a value is missing, a reference leads nowhere or in a circle, or all of it unfolds to too much.
    """
    return _Resolver(root).value(root[key], (key,), 0)


class _Resolver:
    def __init__(self, root: dict[str, Any]):
        self._root, self._left = root, _MAX_NODES

    def value(self, node: Any, where: tuple, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise CheckpointError(
                f"{_path(where)} unfolds to more than {_MAX_NODES} entries or {_MAX_DEPTH} levels, or refers to itself"
            )
        if isinstance(node, dict):
            return {name: self.value(item, (*where, name), depth + 1) for name, item in node.items()}
        if isinstance(node, list):
            return [self.value(item, (*where, index), depth + 1) for index, item in enumerate(node)]
        if node == "???":
            raise CheckpointError(f"{_path(where)} has no value")
        return self._text(node, where, depth) if isinstance(node, str) and "${" in node else node

    def _text(self, text: str, where: tuple, depth: int) -> Any:
        if len(text) > _MAX_TEXT:
            raise CheckpointError(f"{_path(where)} is a text of more than {_MAX_TEXT} characters")
        if ":" in text.replace("${eval:", "") or "\\${" in text:
            return text.replace("${", "{")
        while reference := _INNERMOST.search(text):
            inner = reference.group(1)
            if inner.lstrip().startswith("eval:"):
                value = self._evaluated(inner.partition(":")[2], where)
            else:
                value = self._referred(inner.strip(), where, depth)
            if reference.span() == (0, len(text)):
                return value
            if isinstance(value, (dict, list)):
                raise CheckpointError(f"{_path(where)} puts a whole section into a text")
            value = str(value)
            text = text[: reference.start()] + value + text[reference.end() :]
            self._left -= 1 + len(value) // 100
            if len(text) > _MAX_TEXT or self._left < 0:
                raise CheckpointError(f"{_path(where)} unfolds to more than {_MAX_TEXT} characters")
        if "${" in text:
            raise CheckpointError(f"{_path(where)} holds an interpolation that cannot be read: {text[:100]!r}")
        return text

    def _evaluated(self, expression: str, where: tuple) -> Any:
        expression = expression.strip()
        if len(expression) > 1 and expression[0] == expression[-1] and expression[0] in "'\"":
            expression = expression[1:-1].replace("\\" + expression[0], expression[0])
        try:
            return arithmetic(expression)
        except ConfigError as error:
            raise CheckpointError(f"{_path(where)}: {error}") from error

    def _referred(self, reference: str, where: tuple, depth: int) -> Any:
        """What `a.b[0]`, `.a` or `..a` stands for."""
        names = reference.lstrip(".")
        up = len(reference) - len(names)
        path: tuple = where[:-up] if up else ()
        if up > len(where):
            raise CheckpointError(f"{_path(where)} refers to {reference[:100]!r}, which is above the config")
        node: Any = self._root
        for name in path:
            node = node[name]
        for name in re.sub(r"\[([^\]]*)\]", r".\1", names).split(".") if names else ():
            name = name.strip("'\" ")
            while isinstance(node, str) and "${" in node:  # a section that is itself an interpolation
                node, depth = self.value(node, path, depth + 1), depth + 1
            if isinstance(node, list) and name.isdecimal() and int(name[:9]) < len(node):
                node, path = node[int(name[:9])], (*path, int(name[:9]))
            elif isinstance(node, dict) and name in node:
                node, path = node[name], (*path, name)
            elif isinstance(node, dict) and name.isdecimal() and len(name) < 10 and int(name) in node:
                node, path = node[int(name)], (*path, int(name))
            else:
                raise CheckpointError(f"{_path(where)} refers to {reference[:100]!r}, which is not there")
        return self.value(node, path, depth + 1)


def _path(where: tuple) -> str:
    return ".".join(str(name)[:50] for name in where[-8:])
