"""Hydra and OmegaConf set-up shared by every script and by checkpoint loading."""

from __future__ import annotations

import ast
import operator
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
_MAX_EXPRESSION = 1000  # characters; the parser's own memory and recursion are not bounded


class ConfigError(ValueError):
    """A setting that cannot work; the message says which one and what to use instead."""


class CheckpointError(ConfigError):
    """A checkpoint that cannot be loaded; the message says why and what to do."""


def arithmetic(expression: str) -> Any:
    """Evaluates numbers, comparisons, and/or/not and `a if c else b`; nothing else.

    The original configs use an `eval` resolver for this (`${eval:'${n_obs_steps}-1'}`). Ours accepts only such
    arithmetic, because the config of a downloaded checkpoint is foreign input. Strings can only be compared.
    """

    def apply(operation: ast.AST, *operands: Any) -> Any:
        function: Any = _OPERATORS[type(operation)]
        return function(*operands)

    def number(node: ast.AST) -> Any:
        result = value(node)
        if not isinstance(result, (int, float)):  # 'a' * 10**10 would fill the memory
            raise TypeError(f"{result!r} is not a number")
        return result

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, bool, str, type(None))):
            return node.value
        if isinstance(node, ast.Name) and node.id.lower() in _CONSTANTS:
            return _CONSTANTS[node.id.lower()]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return not value(node.operand)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return apply(node.op, number(node.operand))
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return apply(node.op, number(node.left), number(node.right))
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
            return apply(node.ops[0], value(node.left), value(node.comparators[0]))
        if isinstance(node, ast.BoolOp):
            for item in node.values:  # as in Python: the value that decides, and nothing after it is evaluated
                result = value(item)
                if bool(result) != isinstance(node.op, ast.And):
                    break
            return result
        if isinstance(node, ast.IfExp):
            return value(node.body if value(node.test) else node.orelse)
        raise ConfigError(
            f"eval:{expression!r} is more than arithmetic; only numbers, comparisons and if/else are evaluated"
        )

    text = str(expression).strip()
    if len(text) > _MAX_EXPRESSION:
        raise ConfigError(
            f"eval: an expression of {len(text)} characters is refused; at most {_MAX_EXPRESSION} are evaluated"
        )
    try:
        return value(ast.parse(text, mode="eval"))
    except ConfigError:
        raise
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ConfigError(f"eval:{expression!r} cannot be evaluated: {error}") from error


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("eval", arithmetic, replace=True)


def to_plain(cfg: DictConfig) -> dict:
    """A resolved copy of a config made of dicts, lists, numbers and strings."""
    register_resolvers()
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    return plain


def choose_device(name: str) -> torch.device:
    """'auto', 'cpu', 'cuda', 'cuda:1', ... -> device; asking for one that is not there is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:<index>") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device={name} was asked for but PyTorch {torch.__version__} sees no CUDA GPU: use device=cpu"
        )
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(f"device={name} does not exist: this machine has {torch.cuda.device_count()} CUDA GPU(s)")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name} is not supported: use auto, cpu or cuda")
    return device
