"""Episodes to run, their results, and the file that holds one line per finished episode."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_policy.common.errors import InputError
from diffusion_policy.common.files import atomic_path

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Episode:
    """One initial state to roll out from. `index` is its place in the evaluation, `seed` the environment's seed."""

    index: int
    seed: int
    split: str

    def __post_init__(self):
        if self.index < 0 or self.split not in SPLITS:
            raise ValueError(f"an episode has an index >= 0 and a split of {SPLITS}, not {self.index}, {self.split!r}")


@dataclass(frozen=True)
class EpisodeResult:
    """Result of one episode; one line of `episodes.jsonl`.

    `score` is what the benchmark averages, `success` its success criterion, `policy_calls` the number of action chunks,
    `env_steps` the number of control steps, `truncated` whether the step limit ended it, `video` a path relative to the
    results folder. `success_step` is the control step, from 1, at which it first succeeded; `jitter` the root mean
    square second difference of the executed actions and `boundary_jump` that of the first difference from one chunk to
    the next, in the environment's units. These three are None where they do not exist (no success, one chunk only) and
    in rows of earlier versions.
    """

    index: int
    seed: int
    split: str
    score: float
    max_reward: float
    sum_reward: float
    success: bool
    truncated: bool
    env_steps: int
    policy_calls: int
    metrics: dict[str, float] = field(default_factory=dict)
    video: str | None = None
    success_step: int | None = None
    jitter: float | None = None
    boundary_jump: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EpisodeResult:
        """Inverse of `to_dict`. Raises ValueError for missing or unknown fields and for values of another kind."""
        if not isinstance(values, dict):
            raise ValueError("not an episode result: no record of fields")
        fields = {f.name: f for f in dataclasses.fields(cls)}
        required = {
            name
            for name, f in fields.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        missing, unknown = required - values.keys(), values.keys() - fields.keys()
        if missing or unknown:
            raise ValueError(f"not an episode result: missing fields {sorted(missing)}, unknown {sorted(unknown)}")
        for name, value in values.items():
            if not _FITS[name](value):
                raise ValueError(f"not an episode result: {name} is {str(value)[:80]!r}")
        return cls(**values)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf and (type(value) is float or abs(value) < 2**63)


def _flag(value: Any) -> bool:
    return type(value) is bool


#: what the fields of a stored result may be
_FITS: dict[str, Callable[[Any], bool]] = {
    "index": _count,
    "seed": _count,
    "split": lambda value: isinstance(value, str) and value in SPLITS,
    "score": _number,
    "max_reward": _number,
    "sum_reward": _number,
    "success": _flag,
    "truncated": _flag,
    "env_steps": _count,
    "policy_calls": _count,
    "metrics": lambda value: isinstance(value, dict) and all(map(_number, value.values())),
    "video": lambda value: value is None or isinstance(value, str),
    "success_step": lambda value: value is None or _count(value),
    "jitter": lambda value: value is None or _number(value),
    "boundary_jump": lambda value: value is None or _number(value),
}


def append_episode(path: str | Path, result: EpisodeResult) -> None:
    """Append one line and wait until it is on the disk."""
    line = json.dumps(result.to_dict(), allow_nan=False) + "\n"
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def load_episodes(path: str | Path) -> list[EpisodeResult]:
    """Finished episodes of an `episodes.jsonl`, sorted by index; an absent file holds none.

    A last line without its line end was cut off by a kill: it is removed from the file, so that its episode runs again.

    Raises:
        ValueError: any other line that is not an episode result, or two lines for one episode.
    """
    path = Path(path)
    if not path.exists():
        return []
    complete, end, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        with atomic_path(path) as temporary:
            temporary.write_bytes(complete + end)
    results: dict[int, EpisodeResult] = {}
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            result = EpisodeResult.from_dict(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number} is not an episode result ({error}). "
                "Remove the file to start the evaluation anew"
            ) from error
        if result.index in results:
            raise InputError(
                f"{path} holds episode {result.index} twice; did two evaluations write to this folder? "
                "Remove the file to start the evaluation anew"
            )
        results[result.index] = result
    return [results[index] for index in sorted(results)]


def missing_episodes(episodes: Sequence[Episode], results: Sequence[EpisodeResult]) -> list[Episode]:
    """The episodes that have no result yet.

    Raises:
        ValueError: a result is not of one of `episodes`: it comes from an evaluation with other settings.
    """
    planned = {episode.index: episode for episode in episodes}
    for result in results:
        if planned.get(result.index) != Episode(result.index, result.seed, result.split):
            raise InputError(
                f"a finished episode (index {result.index}, {result.split} seed {result.seed}) is not part of this "
                "evaluation: its seeds or numbers of episodes were others. Use another output folder or remove the old "
                "results"
            )
    done = {result.index for result in results}
    return [episode for episode in episodes if episode.index not in done]
