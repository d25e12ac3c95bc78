"""What methods and tasks are called on pages for people, and the colour and mark of each family of methods."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import NamedTuple

OWN_SAMPLER = "ddpm100"  # of every bundled policy
ALL_TOKENS = "full_all_tokens"  # in timings where the other methods denoise fewer

# Task -> heading, in the order of the tables.
TITLES = MappingProxyType(
    {
        "pusht_lowdim": "Push-T",
        "block_pushing": "Block Pushing",
        "kitchen_scripted_demos": "Kitchen",
        "lift_scripted_demos": "Lift from images",
        "can_scripted_demos": "Can from images",
    }
)
METHOD_NAMES = {
    "uniform": "Uniform",
    "bac": "BAC",
    "blockwise_acs": "block-wise ACS",
    "unified_acs": "unified ACS",
    "sacs": "S-ACS",
}
SOLVER_NAMES = {"ddpm": "DDPM", "ddim": "DDIM", "dpmpp": "DPM-Solver++", "ancestral": "ancestral", "flow": "Euler"}
OPTION_NAMES = {"k": "top_k {}", "r": "refresh at step {}"}


class Family(NamedTuple):
    """How a family of methods is named and drawn: colours of Okabe and Ito, marks that also differ in grey.

    Attributes:
        marker, symbol: its mark as matplotlib and as plotly name it.
    """

    title: str
    colour: str
    marker: str
    symbol: str


#: in the order of legends
FAMILIES = MappingProxyType(
    {
        "full": Family("full policy", "#000000", "s", "square"),
        "uniform": Family("Uniform", "#0072B2", "o", "circle"),
        "unified_acs": Family("Unified ACS", "#56B4E9", "v", "triangle-down"),
        "blockwise_acs": Family("Block-wise ACS", "#D55E00", "P", "cross"),
        "bac": Family("BAC", "#009E73", "D", "diamond"),
        "sacs": Family("S-ACS", "#CC79A7", "^", "triangle-up"),
        "steps": Family("fewer sampler steps", "#7F7F7F", "X", "x"),
        "ancestral": Family("coupled ancestral sampler", "#E69F00", "p", "pentagon"),
        "other": Family("another method", "#999933", "h", "hexagon"),
    }
)


def split_key(key: str) -> tuple[str, str]:
    """'bac_s8@ddim16' -> its method and its sampler, which is the bundled policies' own where none is named."""
    method, _, sampler = key.partition("@")
    return method, sampler or OWN_SAMPLER


def label(method: str, sampler: str) -> str:
    """A method as the tables of stored results name it: 'BAC, budget 8, on DDIM-16'.

    Raises:
        KeyError: it is none of this project's caches or samplers.
    """
    solver = solver_label(sampler)
    if method == ALL_TOKENS:
        return f"full policy, all tokens ({solver})"
    if method == "full":
        return f"full policy ({solver})" if sampler == OWN_SAMPLER else solver
    cache, _, settings = method.partition("_s")
    budget, *options = settings.split("_")
    parts = [METHOD_NAMES[cache], f"budget {budget}"]
    parts += [OPTION_NAMES[option[0]].format(option[1:]) for option in options]
    return ", ".join(parts if sampler == OWN_SAMPLER else [*parts, f"on {solver}"])


def solver_label(sampler: str) -> str:
    """'DDIM-16', 'ancestral-5', 'DDIM-16 (even)'."""
    name, *tags = sampler.split("-")
    found = re.fullmatch(r"([a-z]+)(\d+)", name)
    if found is None:
        raise KeyError(sampler)
    kind, steps = found.groups()
    return f"{SOLVER_NAMES[kind]}-{steps}" + (f" ({', '.join(tags)})" if tags else "")


def evaluations(sampler: str) -> int:
    """How often a chunk runs the denoiser: the sampler's steps."""
    return int(re.match(r"[a-z]+(\d+)", sampler)[1])  # type: ignore[index]


def family(method: str, sampler: str, own_sampler: str = OWN_SAMPLER) -> str:
    """The key of `FAMILIES` that a method belongs to.

    Args:
        own_sampler: the checkpoint's.
    """
    if method in ("full", ALL_TOKENS):
        if sampler == own_sampler:
            return "full"
        return "ancestral" if sampler.startswith("ancestral") else "steps"
    found = [name for name in FAMILIES if method == name or method.startswith(f"{name}_")]
    return max(found, key=len, default="other")


def budget(method: str) -> str:
    """'10' of bac_s10 or bac_s10_k12; '-' of a method without a budget."""
    found = re.search(r"_s(\d+)", method)
    return "-" if found is None else found[1]


def score_name(task: str) -> str:
    return "success rate" if task.startswith(("lift", "can", "square")) else "score"
