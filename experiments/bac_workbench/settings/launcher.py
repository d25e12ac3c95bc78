"""The settings of config/launcher, and what a command line may ask of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import ChoiceSweep, Override

from bac_workbench.command_words import typed
from bac_workbench.settings.kinds import Count, Section, nullable
from bac_workbench.settings.overrides import text_of
from bac_workbench.settings.schema import as_typed
from bac_workbench.sweeps.launchers import BASIC, HYDRAS, PRESETS, missing

HYDRAS_OWN = "hydra/launcher"


class Launcher(Section):
    jobs: nullable(Count)


def launcher_problems(overrides: Sequence[Override], command: str, multirun: bool) -> Iterator[str]:
    """What is wrong with the launcher that a command line chooses, for a command that has the choice.

    Whether it is installed is asked before anything is composed: the presets build on what Hydra's plugins bring.
    """
    chosen = [override for override in overrides if override.key_or_group == "launcher"]
    for override in overrides:
        if override.key_or_group == HYDRAS_OWN and (preset := HYDRAS.get(text_of(override))) is not None:
            yield f"{as_typed(override.input_line)}: write launcher={preset}, which sets it up for {typed(command)}"
    name = BASIC if not chosen else text_of(chosen[-1])
    for override in chosen:
        line = as_typed(override.input_line)
        if isinstance(override.value(), ChoiceSweep):
            yield f"{line}: one launcher runs all cells: use one of {', '.join(PRESETS)}"
        elif name in PRESETS and (advice := missing(name)) is not None:
            yield f"{line}: {advice}"
        elif name in PRESETS and name != BASIC and not multirun and command != "tune":
            yield f"{line}: it runs the cells of a sweep: add -m"
    for override in overrides:
        if override.key_or_group == "launcher.jobs" and name == BASIC:
            others = ", ".join(preset for preset in PRESETS if preset != BASIC)
            yield f"{as_typed(override.input_line)}: launcher=basic runs one after the other: choose {others}"
