"""The flags that say which block outputs are reused, as the released commands for episodes share them."""

from __future__ import annotations

import argparse

from bac_workbench.released.options import Flags, metric, one_of, whole
from diffusion_policy.common.config import ConfigError

MODES = ("original", "threshold", "optimal")
THRESHOLD = 5  # the released default
#: flags that only some modes read
READ_BY = {
    "cache_threshold": ("threshold",),
    "optimal_steps_dir": ("optimal",),
    "metric": ("optimal",),
    "num_caches": ("optimal",),
    "num_bu_blocks": ("optimal",),
    "other_checkpoint": ("optimal",),
}


def add_cache_flags(parser: Flags, mode: str, steps_dir: str, budget: int) -> None:
    """Adds --cache_mode and what its modes read.

    Args:
        mode: help of --cache_mode.
        steps_dir: an example of --optimal_steps_dir.
        budget: the command's default of --num_caches.
    """
    parser.add_argument("--cache_mode", type=one_of(MODES), help=mode)
    parser.add_argument(
        "--cache_threshold",
        type=whole(1, "interval of updates"),
        help=f"threshold: steps from one update to the next (default: {THRESHOLD})",
    )
    parser.add_argument("--optimal_steps_dir", help=f"optimal: such as {steps_dir}")
    parser.add_argument("--metric", type=metric, help="optimal: of the schedules (default: cosine)")
    parser.add_argument(
        "--num_caches",
        type=whole(1, "number of updates"),
        help=f"optimal: updates of each block before the repair (default: {budget})",
    )
    parser.add_argument(
        "--num_bu_blocks", type=whole(0, "number of blocks"), help="optimal: blocks that are repaired (default: 0)"
    )
    parser.add_argument(
        "--other_checkpoint",
        action="store_true",
        help="optimal: use schedules that were made for another checkpoint of the same size",
    )


def check_flags(given: argparse.Namespace) -> str | None:
    """The mode; None: settings of this project choose the cache.

    Raises:
        ConfigError: flags that contradict each other, or that nothing would read.
    """
    cache = next((text for text in given.settings if text.startswith(("cache=", "cache."))), None)
    if cache is not None and given.cache_mode is not None:
        raise ConfigError(f"--cache_mode {given.cache_mode} and {cache}: leave one of them out")
    mode = given.cache_mode or ("original" if cache is None else None)
    for name, modes in READ_BY.items():
        if getattr(given, name) not in (None, False) and mode not in modes:
            raise ConfigError(
                f"--{name} is a flag of --cache_mode {' and '.join(modes)}"
                + (": add that, or leave it out" if given.cache_mode is None else f", not of {mode}: leave it out")
            )
    if mode == "optimal" and given.optimal_steps_dir is None:
        raise ConfigError(
            "--cache_mode optimal needs --optimal_steps_dir, such as assets/can_ph/optimal_steps/cosine: "
            "diffusion_policy/activation_utils/get_optimal_cache_update_steps.py makes it"
        )
    return mode


def cache_overrides(given: argparse.Namespace, mode: str | None, budget: int) -> list[str]:
    """The `cache` settings for these flags; with `optimal` those that make the same kind of schedule.

    Args:
        budget: the command's default of --num_caches.
    """
    if mode == "original":
        return ["cache=full"]
    if mode == "threshold":
        return ["cache=uniform", f"cache.interval={given.cache_threshold or THRESHOLD}"]
    if mode == "optimal":
        return [
            "cache=bac",
            f"cache.budget={given.num_caches or budget}",
            f"cache.top_k={given.num_bu_blocks or 0}",
            f"cache.metric={given.metric or 'cosine'}",
        ]
    return []
