"""Settings of reproduce, and what it hands on to the evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bac_workbench.settings.evaluation import method_problems
from bac_workbench.settings.kinds import (
    Boolean,
    Count,
    CountOrZero,
    NoiseSeed,
    Section,
    Text,
    choice,
    integer,
    list_of,
    nullable,
    number,
)
from bac_workbench.settings.kinds import Path as PathText
from bac_workbench.settings.rules import Problem
from bac_workbench.settings.schema import as_typed, field_at, kind_of
from bac_workbench.settings.task import Runtime
from diffusion_policy.common.config import ConfigError

#: settings of `bac eval` that the cells of the tables differ in, and what chooses them here
CHOSEN = {
    "task": "tasks=[...]",
    "train": "trainings=[...]",
    "checkpoint_type": "checkpoint_types=[...]",
    "seed": "seeds=[...]",
    "cache": "budgets=[...] and further=[...]",
    "sampler": "further=[...]",
    "eval.n_test": "n_test=...",
    "eval.n_train": "n_test=...",
    "benchmark": "n_chunks=...",
    "overwrite": "another output_dir=..., or remove the folder of a cell",
}


class Reproduce(Section):
    tasks: nullable(list_of(Text, "[pusht_lowdim,can_ph]"))
    trainings: nullable(list_of(integer(0, 2), "[0,1,2]"))
    checkpoint_types: list_of(choice("max", "avg"), "[max,avg]")
    seeds: list_of(NoiseSeed, "[0,1,2]")
    tables: list_of(integer(1, 2), "[1,2]")
    budgets: list_of(Count, "[5,10,20]")
    further: list_of(Text, "[full@ddim16,tuned]", empty=True)
    n_test: Count
    n_chunks: CountOrZero
    runtime: Runtime
    margin: number(above=0, below=1)
    missing: choice("error", "skip")
    dry_run: Boolean
    pictures: Boolean
    output_dir: PathText

    def problems(self, others: Sequence[str]) -> Iterator[Problem]:
        """What the values rule out together, with the settings for the evaluations."""
        yield from method_problems("further", self.further, None)
        for text in others:
            name = text.partition("=")[0].lstrip("+~")
            for chosen, instead in CHOSEN.items():
                if name == chosen or chosen != "task" and name.startswith(f"{chosen}."):
                    yield name, f"the cells of the tables differ in it: use {instead}"
        checkpoint = any(text.lstrip("+").startswith("checkpoint=") for text in others)
        if checkpoint and (self.tasks is None or len(self.tasks) > 1 or self.trainings is not None):
            yield "checkpoint", "it is of one task: name that with tasks=[...], and leave trainings= out"


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """This command's own settings, and those for every evaluation.

    `--seeds 0,1,2` and `seeds=0,1,2` are `seeds=[0,1,2]`, `--dry-run` is `dry_run=true`.

    Raises:
        ConfigError: an option is unknown, or lacks its value.
    """
    own, others, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        dashed = name.startswith("--")
        if dashed:
            name = name[2:].replace("-", "_")
        field = field_at(Reproduce, name)
        if field is None:
            if dashed:
                known = ", ".join(f"--{own_name.replace('_', '-')}" for own_name in Reproduce.model_fields)
                raise ConfigError(f"{as_typed(argument)}: there is no such option; use {known}")
            others.append(argument)
            continue
        if dashed and not equals:
            flag = kind_of(field).choices == ("true", "false")
            if rest and (rest[0] in ("true", "false") if flag else not rest[0].startswith("--")):
                value = rest.pop(0)
            elif flag:
                value = "true"
            else:
                raise ConfigError(f"{as_typed(argument)}: give it a value: {kind_of(field).allowed.format(name=name)}")
        if kind_of(field).allowed.startswith("a list") and not value.startswith("[") and value != "null":
            value = f"[{value}]"
        own.append(f"{name}={value}")
    return own, others
