"""Recorded observations in place of a task: `observations=`, and the command line of a policy that has no task here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bac_workbench.settings.evaluation import PolicySettings
from bac_workbench.settings.kinds import Names, Share
from bac_workbench.settings.overrides import parsed
from bac_workbench.settings.rules import Problem, Values
from bac_workbench.settings.task import PathOrNull

#: the task of a policy of which nothing is known but its checkpoint, config/task/base/recordings.yaml
TASK = "base/recordings"
#: commands that take such a policy, and eval, which says what it cannot do
COMMANDS = ("profile_blocks", "check", "tune", "benchmark", "eval")


class RecordingSettings(PolicySettings):
    """What a command has that takes recorded observations, and with them policies without a task."""

    observations: PathOrNull
    observations_map: Names
    held_out: Share
    output: PathOrNull

    @property
    def profiles_observations(self) -> bool:
        return self.observations is not None and self.profile.source == "auto"


def recording_problems(values: Values) -> Iterator[Problem]:
    if values("checkpoint") is None and values("task.checkpoint") is None and values("task.name") is not None:
        yield "checkpoint", "name the policy, such as checkpoint=latest.ckpt"
    observed = values("observations") is not None
    if not observed and values("observations_map"):
        yield "observations_map", "it says what names mean in a recording: name that with observations="
    if observed and (values("profile.n_episodes"), values("profile.seed_start")) != (None, None):
        if values("profile.source") == "auto" and values("task.environment") is None:
            yield "profile.n_episodes", "it is of rollouts: leave it and profile.seed_start out with observations="
    output = values("output")
    if output is not None and place_of(output)[1] != values("task.name"):
        yield "output", "it is for a policy without task=; with a task use assets_dir= (and output_dir=)"


def place_of(output: str) -> tuple[Path, str]:
    """The folder above `output`, and the name that the policy's files go by."""
    path = Path(output).expanduser()
    whole = path if path.name not in ("", "..") else path.resolve()
    return whole.parent, whole.name


def with_task(arguments: list[str], command: str) -> list[str]:
    """The command line with the task of a policy that has none: checkpoint= is there, and task= is not."""
    names = {argument.partition("=")[0] for argument in arguments}
    if command not in COMMANDS or "task" in names or "checkpoint" not in names:
        return arguments
    added = [f"task={TASK}"]
    for argument in arguments:
        if argument.startswith("output=") and isinstance(output := parsed([argument])[0].value(), str) and output:
            folder, name = place_of(output)
            added += [f"{key}={quoted}" for key, quoted in (("task.name", _quoted(name)),) if key not in names]
            added += [f"assets_dir={_quoted(str(folder))}"] if "assets_dir" not in names else []
    return [*added, *arguments]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
