"""Rollouts of candidates beside each other: cells on the launcher that the command line chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.sweeps.cell import in_cell
from bac_workbench.sweeps.launchers import BASIC
from bac_workbench.sweeps.outcomes import FAILED
from bac_workbench.sweeps.sweep import Interrupted, Sweep, composed
from bac_workbench.tuning.candidates import FULL, make_candidates
from bac_workbench.tuning.episodes import Block, RollOutBeside
from diffusion_policy.common.config import ConfigError


def beside() -> RollOutBeside | None:
    """What rolls out candidates on the chosen launcher; None with launcher=basic.

    Where the tuning is itself a cell of a sweep, the launcher runs the tunings, and each rolls out by itself.
    """
    if in_cell() or HydraConfig.get().runtime.choices["launcher"] == BASIC:
        return None
    return roll_out_on_launcher


def roll_out_on_launcher(block: Block, names: Sequence[str], n: int) -> None:
    """Rolls out the first `n` episodes of each candidate, one cell a candidate.

    Raises:
        ConfigError: some failed; those of the others are kept.
    """
    chosen = [block.candidates[name] for name in names]
    runtime = block.candidates.full.experiment.settings.runtime  # what auto came to
    own, hydras = HydraConfig.get().overrides.task, HydraConfig.get().overrides.hydra
    given = [text for text in own if text.partition("=")[0] != "runtime"]
    overrides = [*given, f"runtime={runtime}"]
    hydra = GlobalHydra.instance().hydra
    cfg = composed(hydra, "tune", [*overrides, *(text for text in hydras if not text.startswith("hydra.mode="))])
    extras = [(item.name, item.method, item.precision, str(block.folder), block.start, n) for item in chosen]
    labels = [f"{name}, {n} seeds from {block.start}" for name in names]
    try:
        outcomes, records = Sweep(hydra, cfg, [overrides] * len(names), roll_out_candidate, extras, labels).run()
    except Interrupted:
        raise KeyboardInterrupt from None
    failed = [
        f"{label}: {outcome.note}"
        for label, outcome in zip(labels, outcomes)
        if outcome is None or outcome.state == FAILED
    ]
    if failed:
        raise ConfigError(
            "\n".join([f"{len(failed)} of {len(names)} rollouts failed:", *failed, f"see {records.folder}"])
        )
    records.remove()


def roll_out_candidate(
    cfg: DictConfig, name: str, method: str, precision: str, folder: str, start: int, n: int
) -> None:
    """The job of a cell: what `Block.results` does in the tuning's own process, for one candidate."""
    settings = check(cfg, "tune")
    methods = [] if method == FULL else [method]
    candidates = make_candidates(load_experiment(settings), methods, [precision], print)
    for ended in candidates.impossible.values():
        raise ConfigError(ended.why)
    Block(candidates, Path(folder), start, print, lambda *_: None).results(name, n)
