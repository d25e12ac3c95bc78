"""Reads `torch.save` files of the original project without running anything they contain.

A pickle is a program: it names Python objects ("globals") and calls them. Here every name is looked up in one table of
inert stand-ins (`pickle_names.ALLOWED`); neither PyTorch's unpickler nor dill nor OmegaConf's `__setstate__` takes
part, and no class or function is ever looked up by a name from the file. Names that are not in the table:
  * a class of somebody's own code (an enum, a dataclass, a learning-rate schedule) becomes a placeholder that keeps the
    name only. Parts that a policy does not need may hold such objects; a policy's weights and settings may not.
  * a function, and anything of the standard library or of a package that can load, run or fetch things, could run code:
    it ends the reading, whatever part of the file it is in.
Numbers and arrays of NumPy, paths, dates and the like are in the table. The pickle's instructions are carried out by
`pickle_machine.PickleMachine`, which limits steps, calls, nesting and sizes; tensors are read straight from the zip
archive (`torch_archive.TorchArchive`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.pickle_budget import Budget
from diffusion_policy.common.pickle_machine import PickleMachine
from diffusion_policy.common.pickle_names import ALLOWED
from diffusion_policy.common.pickle_standins import (
    ConfigDict,
    ConfigList,
    ConfigValue,
    NumpyArray,
    Placeholder,
    StoredPath,
    StoredTensor,
)
from diffusion_policy.common.torch_archive import TorchArchive, restricted_loads

__all__ = [
    "ALLOWED",
    "Budget",
    "PickleMachine",
    "StoredTensor",
    "TorchArchive",
    "plain_config",
    "plain_number",
    "restricted_loads",
]

_MAX_CONFIG_NODES = 100_000  # a pickle can make one node appear exponentially often
_MAX_CONFIG_TEXT = 1_000_000  # characters of all texts together
_MAX_ARRAY = 10_000  # numbers of an array inside a config


def plain_config(root: Any) -> Any:
    """A pickled OmegaConf tree (or plain containers) as dicts, lists, numbers and strings; interpolations stay text.

    Numbers, arrays of numbers and paths become plain. What else is no setting becomes '???', OmegaConf's mark of a
    missing value, so that only a policy that needs it cannot be built.
    """
    left, text_left = _MAX_CONFIG_NODES, _MAX_CONFIG_TEXT

    def plain(node: Any) -> Any:
        nonlocal left, text_left
        left -= 1
        if left < 0:
            raise CheckpointError(
                f"the config has more than {_MAX_CONFIG_NODES} entries: it is not a policy checkpoint"
            )
        if isinstance(node, (ConfigDict, ConfigList)):
            return plain(node.state["_content"])
        if isinstance(node, ConfigValue):
            return plain(node.state["_val"])
        if isinstance(node, dict):
            return {plain(key): plain(value) for key, value in node.items()}
        if isinstance(node, (list, tuple)):
            return [plain(value) for value in node]
        if isinstance(node, StoredPath):
            return plain(str(node))
        if isinstance(node, str):
            text_left -= len(node)
            if text_left < 0:
                raise CheckpointError(
                    f"the config has more than {_MAX_CONFIG_TEXT} characters: it is not a policy checkpoint"
                )
            return node
        if isinstance(node, NumpyArray):
            array = node.array()
            if array is not None and array.size <= min(_MAX_ARRAY, left):
                left -= array.size
                return array.tolist()
            return "???"
        if isinstance(node, (Placeholder, bytes, complex)):
            return "???"
        if node is None or isinstance(node, (bool, int, float)):
            return node
        raise CheckpointError(f"the config holds a {type(node).__name__}; only dicts, lists, numbers and text are read")

    try:
        return plain(root)
    except (KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"the config is damaged ({type(error).__name__}: {str(error)[:200]}): get the file again"
        ) from error


def plain_number(value: Any) -> int | float | None:
    """A Python number, or a NumPy array of one, as a number; None if it is none."""
    if isinstance(value, NumpyArray):
        array = value.array()
        value = array.item() if isinstance(array, np.ndarray) and array.size == 1 else None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and (isinstance(value, int) or math.isfinite(value)) else None
