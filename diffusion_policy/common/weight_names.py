"""Which tensor of a file is which of the policy, where wrappers put prefixes before the names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from torch import nn

from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.pickle_standins import printable

# What DistributedDataParallel and AveragedModel, torch.compile, FSDP and activation checkpointing put into names.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Made when they are loaded, so that a new policy has none.
_NORMALIZER = re.compile(r"normalizer\.params_dict\.[^.]+\.(scale|offset|input_stats\.(min|max|mean|std))")
_COUNTERS = frozenset({"n_averaged"})  # AveragedModel's own


def policy_names(names: Collection[str], policy: nn.Module) -> tuple[dict[str, str], str | None]:
    """Name in the file -> name in the policy, and what was changed, in words; None if nothing was.

    Names stay as they are unless more of them are the policy's without the names of wrappers, or without a prefix that
    all have. Whether they are complete is not looked at.

    Raises:
        CheckpointError: two tensors would get one name.
    """
    own = set(policy.state_dict())
    bare = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names}
    candidates = [{name: name for name in names}, *_without_prefix({name: name for name in names})]
    candidates += [bare, *_without_prefix({name: new for name, new in bare.items() if new not in _COUNTERS})]

    def known(renamed: dict[str, str]) -> int:
        return sum(new in own or _NORMALIZER.fullmatch(new) is not None for new in renamed.values())

    best = max(candidates, key=known)  # the first of several
    if best is candidates[0]:
        return best, None
    best = {name: new for name, new in best.items() if new not in _COUNTERS}
    first: dict[str, str] = {}
    for name, new in best.items():
        if first.setdefault(new, name) != name:
            raise CheckpointError(
                f"{printable(first[new])} and {printable(name)} would both be {printable(new)} "
                "without the prefixes of wrappers: "
                "save the state dict of the module inside of the wrapper"
            )
    name, new = next((pair for pair in best.items() if pair[0] != pair[1]), ("", ""))
    return best, f"names have prefixes of wrappers, which were taken off: {printable(name)} is {printable(new)}"


def _without_prefix(names: dict[str, str]) -> list[dict[str, str]]:
    """The names without one, two, ... parts that all have in common."""
    if not names:
        return []
    common = os.path.commonprefix([new.split(".")[:-1] for new in names.values()])
    cuts = [len(".".join(common[:count])) + 1 for count in range(1, min(len(common), 16) + 1)]
    return [{name: new[cut:] for name, new in names.items()} for cut in cuts]
