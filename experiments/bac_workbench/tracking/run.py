"""A run in Weights & Biases, optional: nothing is imported unless it is asked for, and nothing waits for it for long.

Results are on disk before they are handed on. What fails here after a run has started costs the rest of the run there,
and one line here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

from bac_workbench.settings.task import Wandb
from bac_workbench.tracking.identity import Identity
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path

RUN_FILE = "wandb_run"  # in an output folder: the id of its run
#: seconds that an online run waits for the server at most, by wandb's name of the setting; the variable of wandb wins
PATIENCE = {"init_timeout": ("WANDB_INIT_TIMEOUT", 30.0), "finish_timeout": ("WANDB_FINISH_TIMEOUT", 180.0)}
LONGEST = 200  # characters of an error that are shown


def check_tracking(settings: Wandb) -> ModuleType | None:
    """wandb, or None for wandb.mode=disabled.

    Raises:
        ConfigError: it is not installed; or, with mode=online, there is no login, which wandb would ask for, or the
            server does not answer.
    """
    if settings.mode == "disabled":
        return None
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "wandb.mode is set but wandb is not installed: pip install 'bac-workbench[wandb]', or wandb.mode=disabled"
        ) from error
    if settings.mode == "online" and not logged_in():
        raise ConfigError("wandb.mode=online needs a login: run `wandb login`, or use wandb.mode=offline")
    return wandb


def logged_in() -> bool:
    """Whether wandb is installed and has a login, which its server accepts.

    Without a login, and with WANDB_MODE=offline, no server is asked.

    Raises:
        ConfigError: there is one, and the server refuses it or does not answer.
    """
    try:
        import wandb
    except ImportError:
        return False
    try:
        return bool(wandb.login(prompt=False))
    except (wandb.errors.Error, OSError) as error:
        raise ConfigError(
            f"the login to Weights & Biases could not be used ({brief(error)}): work offline (wandb.mode=offline; "
            "`bac dashboard` with where=local), or run `wandb login`"
        ) from error


class Tracker:
    """One run of a command, from `start` to the end of the `with` block; with wandb.mode=disabled it does nothing.

    Args:
        identity: what the run is called, unless the settings say otherwise.
        config: all settings of the command, as plain values.
        say: is told, once, that Weights & Biases failed.
        folder: where the run's id is kept, so that a command that goes on also goes on in its run.
        resume: go on with the run whose id is there, if one is. Offline, wandb writes a further folder of the same run,
            which `wandb sync` adds to it.

    Raises:
        ConfigError: see `check_tracking`.
    """

    def __init__(
        self,
        settings: Wandb,
        identity: Identity,
        config: Mapping[str, Any],
        say: Callable[[str], None] = print,
        folder: Path | None = None,
        resume: bool = False,
    ):
        self.settings, self.identity, self.config = settings, identity.overridden(settings), dict(config)
        self.say, self.folder, self.resume = say, folder, resume
        self.wandb = check_tracking(settings)
        self.run: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guarded("finishing the run", lambda run: run.finish(exit_code=0 if kind is None else 1))
        self.run = None

    def start(self) -> None:
        """Begins the run.

        Raises:
            ConfigError: it cannot begin: the server does not answer, refuses the login, or the disk is full.
        """
        if self.wandb is None:
            return
        same: dict[str, Any] = {}
        if self.folder is not None:
            same = {"id": run_id(self.folder, self.resume), "resume": "allow"}
        patience = {name: seconds for name, (variable, seconds) in PATIENCE.items() if variable not in os.environ}
        try:
            self.run = self.wandb.init(
                project=self.settings.project,
                entity=self.settings.entity,
                name=self.identity.name,
                group=self.identity.group,
                job_type=self.identity.job_type,
                tags=self.identity.tags,
                mode=self.settings.mode,
                config=self.config,
                settings=self.wandb.Settings(**patience),
                **same,
            )
        except (self.wandb.errors.Error, OSError) as error:
            raise ConfigError(
                f"the run of Weights & Biases does not start ({brief(error)}): nothing was measured. "
                "wandb.mode=offline keeps it here until `wandb sync`, wandb.mode=disabled does without"
            ) from error

    def log(self, record: Mapping[str, Any], step: int | None = None) -> None:
        """Adds numbers, tables or pictures to the run's history."""
        self._guarded("logging", lambda run: run.log(dict(record), step=step))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Sets numbers of the run's summary; those that are None are left out."""
        known = {name: value for name, value in values.items() if value is not None}
        self._guarded("the summary", lambda run: run.summary.update(known))

    def log_media(self, make: Callable[[ModuleType], Mapping[str, Any]]) -> None:
        """Adds what `make(wandb)` gives: tables, pictures and videos by their keys."""
        self._guarded("tables and pictures", lambda run: run.log(dict(make(self.wandb))))

    def _guarded(self, what: str, act: Callable[[Any], None]) -> None:
        """`act(run)`; whatever goes wrong there ends the tracking, and not what is tracked."""
        if self.run is None:
            return
        try:
            act(self.run)
        except Exception as error:
            self.run = None
            with contextlib.suppress(Exception):
                self.wandb.teardown()  # a service that died would be asked again at exit, and by the next run
            self.say(
                f"note: Weights & Biases failed ({what}: {brief(error)}) and gets nothing more of this run; "
                "the results on disk do not depend on it"
            )


def run_id(folder: Path, resume: bool) -> str:
    """The id in the folder, or a fresh one, which is then kept there."""
    path = folder / RUN_FILE
    if resume and path.is_file() and (stored := path.read_text().strip()).isalnum():
        return stored
    fresh = secrets.token_hex(4)
    with atomic_path(path) as temporary:
        temporary.write_text(fresh + "\n")
    return fresh


def brief(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:LONGEST] if lines else type(error).__name__
