"""The presets of config/launcher: what each needs, and how many cells it runs at once with how many cores."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from omegaconf import DictConfig, OmegaConf, open_dict

from bac_workbench.sweeps.outcomes import Records

BASIC = "basic"
#: names of Hydra's launchers -> presets
HYDRAS = MappingProxyType(
    {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "submitit_local", "ray": "ray"}
)
#: settings that mean "one per core" where they are null
SHARES = ("threads", "n_workers", "eval.n_workers", "rollouts.n_workers", "training.num_threads")


@dataclass(frozen=True)
class Needs:
    """What a preset needs: a module, which an extra of this project brings."""

    module: str
    extra: str


PRESETS = MappingProxyType(
    {
        BASIC: None,
        "joblib": Needs("hydra_plugins.hydra_joblib_launcher", "sweeps"),
        "slurm": Needs("hydra_plugins.hydra_submitit_launcher", "sweeps"),
        "submitit_local": Needs("hydra_plugins.hydra_submitit_launcher", "sweeps"),
        "ray": Needs("hydra_plugins.hydra_ray_launcher", "ray"),
    }
)


def missing(name: str) -> str | None:
    """What to install for a preset; None if it is there."""
    needs = PRESETS[name]
    if needs is None:
        return None
    try:
        found = importlib.util.find_spec(needs.module)
    except ModuleNotFoundError:
        found = None
    if found is not None:
        return None
    return f"it is not installed: make setup EXTRAS=pusht,{needs.extra}, or pip install '.[{needs.extra}]', brings it"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Share:
    """How a launcher runs its cells.

    Attributes:
        name: of the preset.
        at_once: cells that share this machine.
        cores: of each cell; None: it takes what it finds, as without a sweep.
        batch: cells that are handed to the launcher together; None: all.
    """

    name: str
    at_once: int
    cores: int | None
    batch: int | None

    @property
    def apart(self) -> bool:
        """Whether cells run in processes of their own; joblib runs a single one in this one."""
        return self.name != BASIC and not (self.name == "joblib" and self.at_once == 1)

    @property
    def line(self) -> str:
        if self.name == BASIC:
            return "one after the other"
        each = "" if self.cores is None else f", {self.cores} core{'s' if self.cores > 1 else ''} each"
        where = "jobs of SLURM" if self.name == "slurm" else f"{self.at_once} at once on launcher={self.name}"
        return where + each


def set_up(cfg: DictConfig, n_cells: int, records: Records) -> Share:
    """Puts the number of cells at once, and the cores of each, into the launcher's own settings in `cfg`.

    On this machine every cell gets its share of the cores, so that they do not slow each other down.
    """
    with open_dict(cfg):  # Hydra would list every cell with all its settings; the sweep says which ones there are
        cfg.hydra.hydra_logging.root.level = "WARNING"
    own = cfg.hydra.runtime.choices["hydra/launcher"]
    choice = HYDRAS.get(own, own)
    jobs, batch = OmegaConf.select(cfg, "launcher.jobs"), OmegaConf.select(cfg, "hydra.sweeper.max_batch_size")
    if choice not in HYDRAS.values():
        return Share(choice, 1, None, batch)
    at_once = max(1, min(jobs or cores(), n_cells))
    each = max(1, cores() // at_once)
    with open_dict(cfg):
        launcher = cfg.hydra.launcher
        if choice == "joblib":
            launcher.n_jobs = at_once
        if choice == "ray":
            launcher.ray.remote.setdefault("num_cpus", each)
            if launcher.ray.init.get("address") is None:
                launcher.ray.init.setdefault("num_cpus", at_once * each)
        if choice in ("slurm", "submitit_local"):
            launcher.submitit_folder = str(records.folder / "submitit" / "%j")
    if choice == "slurm":
        if jobs is not None:
            cfg.hydra.launcher.array_parallelism = jobs
        return Share(choice, 1, OmegaConf.select(cfg, "hydra.launcher.cpus_per_task"), batch)
    if choice == "submitit_local":  # it starts all that it is given
        batch = min(at_once, batch or at_once)
    return Share(choice, at_once, each, batch)


def shares(cfg: DictConfig, cell: Sequence[str], share: Share) -> list[str]:
    """Overrides that give a cell its cores, where neither the files nor the user say how many."""
    if share.cores is None:
        return []
    given = {override.partition("=")[0].lstrip("+~") for override in cell}
    return [
        f"{name}={share.cores}"
        for name in SHARES
        if name not in given
        and isinstance(parent := OmegaConf.select(cfg, name.rpartition(".")[0]) if "." in name else cfg, DictConfig)
        and name.rpartition(".")[2] in parent
        and OmegaConf.select(cfg, name) is None
    ]


def submitted(records: Records) -> list[str]:
    """Ids of the jobs that submitit was given: SLURM's, or of the processes that watch over them here."""
    return sorted(path.name for path in (records.folder / "submitit").glob("[0-9]*"))


def wait_for_others(name: str, records: Records, pause: float = 1.0) -> None:
    """Returns when nothing that submitit was given runs any more. The other launchers leave nothing behind."""
    if name in ("slurm", "submitit_local"):
        is_done: Callable[[str], bool] = slurm_done(records) if name == "slurm" else process_done
        while [job for job in submitted(records) if not is_done(job)]:
            time.sleep(pause)
    elif name == "ray":
        import ray

        ray.shutdown()


def slurm_done(records: Records) -> Callable[[str], bool]:
    from submitit import SlurmJob

    folder = records.folder / "submitit" / "%j"
    return lambda job: SlurmJob(folder=Path(folder), job_id=job).done(force_check=True)


def process_done(pid: str) -> bool:
    try:
        return os.waitpid(int(pid), os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def cancel(name: str, records: Records) -> None:
    """Ends what still runs after Ctrl-C. The processes of joblib and Ray end with their sweep."""
    if name == "slurm":
        jobs = sorted({job.partition("_")[0] for job in submitted(records)})
        if jobs:
            subprocess.run(["scancel", *jobs], check=False)
    elif name == "submitit_local":
        for cell in records.running():
            if cell.host == socket.gethostname():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(cell.pid, signal.SIGINT)
        wait_for_others(name, records)
