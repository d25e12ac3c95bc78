"""All cells of a reproduction, with what is there and about how long the rest takes; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose

from bac.errors import UserError
from bac.native import build
from bac_workbench.reproducing.cells import EARLIER, THERE, Cell, methods_of, overrides_of, plan
from bac_workbench.reproducing.duration import Pace, pace_of, told
from bac_workbench.reproducing.sources import Source
from bac_workbench.settings import check
from bac_workbench.settings.composition import job_problems
from bac_workbench.settings.launcher import launcher_problems
from bac_workbench.settings.overrides import parsed, unreadable
from bac_workbench.settings.reproducing import Reproduce
from bac_workbench.settings.schema import report, schema_of
from bac_workbench.setup.experiment import Experiment, load_experiment
from bac_workbench.sweeps.launchers import BASIC
from bac_workbench.sweeps.sweep import without_hydras
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.errors import UserError as PolicyError


@dataclass(frozen=True)
class Plan:
    """Cells, policy by policy.

    Attributes:
        paces: of policies whose environments could be tried; the others' durations are not known.
        assets: where profiles and schedules are.
    """

    cells: tuple[Cell, ...]
    paces: dict[Source, Pace]
    assets: str

    @property
    def open_cells(self) -> list[Cell]:
        """Those that have to run."""
        return [cell for cell in self.cells if cell.state not in (THERE, EARLIER)]

    def by_method(self) -> dict[tuple[str, str], list[Cell]]:
        found: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            found.setdefault((cell.source.words, cell.method), []).append(cell)
        return found

    def by_task(self) -> dict[str, list[list[Cell]]]:
        """Task -> the cells of each of its policies."""
        found: dict[str, dict[Source, list[Cell]]] = {}
        for cell in self.cells:
            found.setdefault(cell.source.task.choice, {}).setdefault(cell.source, []).append(cell)
        return {task: list(policies.values()) for task, policies in found.items()}

    def seconds(self, cells: Sequence[Cell] | None = None) -> float | None:
        """About how long the open ones among these (None: all) take one after the other; None: not known."""
        todo = [cell for cell in (self.cells if cells is None else cells) if cell in self.open_cells]
        if any(cell.source not in self.paces for cell in todo):
            return None
        return sum(self.paces[cell.source].seconds(cell) for cell in todo)

    def told(self, cells: Sequence[Cell]) -> str:
        if not any(cell in self.open_cells for cell in cells):
            return "-"
        seconds = self.seconds(cells)
        return "not known" if seconds is None else told(seconds)


def check_others(settings: Reproduce, sources: Sequence[Source], others: Sequence[str]) -> None:
    """Checks the settings that go to every evaluation, on one cell of each task. Needs the folder of the configuration.

    Raises:
        ConfigError: lists all that are wrong.
    """
    problems = [problem for text in others if (problem := unreadable(text, schema_of("eval"))) is not None]
    problems = problems or [f"{name}: {message}" for name, message in settings.problems(others)]
    problems = problems or list(launcher_problems(parsed(list(others)), "eval", True))
    for task in {source.task.choice: source for source in sources}.values() if not problems else ():
        for method in methods_of(settings)[:2]:
            texts = [*task.settings, *overrides_of(method), *usual(settings), *others]
            problems += [text for text in job_problems(texts, "eval", None) if text not in problems]
    if problems:
        raise ConfigError(report(problems))


def usual(settings: Reproduce) -> list[str]:
    """What every cell has."""
    return [f"runtime={settings.runtime}", f"eval.n_test={settings.n_test}", "benchmark.n_chunks=0"]


def plan_all(
    settings: Reproduce, sources: Sequence[Source], others: Sequence[str], output: Path, say: Callable[[str], None]
) -> Plan:
    """Loads every policy once; with download=true it is fetched here, before anything runs, but for a dry run.

    Raises:
        UserError: something does not fit, or the runtime cannot be had here.
    """
    cells: list[Cell] = []
    paces: dict[Source, Pace] = {}
    assets = "assets"
    for source in sources:
        if settings.dry_run and source.training.chosen and not source.training.find(source.task):
            say(f"would be downloaded, and is not looked into: {source.words}")
            continue
        base = experiment_of(source, settings, others)
        assets = base.settings.assets_dir
        if base.device.type == "cpu" and settings.runtime == "compiled" and not settings.dry_run:
            build.library()  # its error says what is missing
        found = list(plan(source, base, settings, output, say))
        cells += found
        if any(cell.state not in (THERE, EARLIER) for cell in found):
            alike = next((pace for other, pace in paces.items() if other.task == source.task), None)
            pace = alike or tried(base, others, say)
            paces |= {} if pace is None else {source: pace}
    return Plan(tuple(cells), paces, assets)


def experiment_of(source: Source, settings: Reproduce, others: Sequence[str]) -> Experiment:
    """The full policy, with the settings for every cell."""
    texts = without_hydras([*source.settings, "cache=full", *usual(settings), *others])
    cfg = compose("eval", texts)
    checked = check(cfg, "eval", texts)
    return load_experiment(checked, needs_simulator=not settings.dry_run, n_test=settings.n_test, n_train=0)


def tried(base: Experiment, others: Sequence[str], say: Callable[[str], None]) -> Pace | None:
    """How fast the full policy acts here; None where that cannot be tried."""
    launcher = next((text.partition("=")[2] for text in others if text.startswith("launcher=")), BASIC)
    if launcher == "slurm":
        say("how long cells take is not known: they run on other machines")
        return None
    try:
        return pace_of(base)
    except (UserError, PolicyError) as error:
        say(f"how long cells of {base.settings.task.name} take is not known: {error}")
        return None


def first_seeds(cells: Sequence[Cell]) -> set[Cell]:
    """The first cell of each method and policy."""
    first: dict[tuple[Source, str], Cell] = {}
    for cell in cells:
        first.setdefault((cell.source, cell.method), cell)
    return set(first.values())


def with_videos(cell: Cell, filmed: bool, others: Sequence[str]) -> list[str]:
    """The overrides of a cell; one of the noise seeds is filmed unless the user says how many episodes are."""
    told_otherwise = any(text.lstrip("+").startswith("eval.n_videos=") for text in others)
    return [*cell.overrides, *([] if filmed or told_otherwise else ["eval.n_videos=0"])]
