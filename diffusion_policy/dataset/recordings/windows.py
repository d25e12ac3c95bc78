"""Recorded rows as the observations of a policy: which field is which input, and histories of To rows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.recordings.contract import ACTION, Field, Recording, starts

COLUMNS = re.compile(r"(?P<name>.+?):(?P<start>\d{1,6}):(?P<stop>\d{1,6})")


@dataclass(frozen=True)
class Source:
    """Where one input of a policy comes from.

    Attributes:
        name: of the field; `columns`: of a vector, those that are taken.
        channels_last: an image [H, W, C], which becomes [C, H, W].
    """

    name: str
    columns: slice
    channels_last: bool

    def __str__(self) -> str:
        taken = "" if self.columns == slice(None) else f":{self.columns.start}:{self.columns.stop}"
        return f"{self.name}{taken}"


@dataclass(frozen=True)
class Match:
    """One input of a policy beside what the recording has for it: a source, or a problem in words."""

    shape: tuple[int, ...]
    source: Source | None
    problem: str = ""


def match(
    recording: Recording,
    wanted: Mapping[str, tuple[int, ...]],
    cameras: Sequence[str],
    names: Mapping[str, str] | None = None,
) -> dict[str, Match]:
    """For each input of a policy the field of its name and shape, or of the name that `names` gives.

    Args:
        wanted: name -> shape of one observation, images [C, H, W].
        cameras: those of them that are images.
        names: the policy's name -> the recording's, of a vector also <name>:<start>:<stop>.
    """
    names = dict(names or {})
    return {
        name: _matched(recording.fields, names.get(name, name), tuple(shape), name in cameras)
        for name, shape in wanted.items()
    }


def _matched(fields: Mapping[str, Field], text: str, shape: tuple[int, ...], camera: bool) -> Match:
    name, columns = text, slice(None)
    if text not in fields and (found := COLUMNS.fullmatch(text)):
        name, columns = found["name"], slice(int(found["start"]), int(found["stop"]))
    name = next((short for short, field in fields.items() if field.stored == name), name)
    if name not in fields:
        return Match(shape, None, f"there is no {name}")
    field = fields[name]
    if camera:
        if field.shape == shape:
            return Match(shape, Source(name, slice(None), False))
        if len(shape) == 3 and field.shape == (shape[1], shape[2], shape[0]):
            return Match(shape, Source(name, slice(None), True))
        return Match(shape, None, f"{name} is {list(field.shape)}: record images of this size, or resize them")
    width = int(np.prod(field.shape[:1] or (1,)))
    taken = len(range(*columns.indices(width)))
    if len(field.shape) > 1 or (taken,) != shape:
        return Match(
            shape, None, f"{name} is {list(field.shape)}" + (f", {text} {taken} numbers" if text != name else "")
        )
    return Match(shape, Source(name, columns, False))


class RecordedObservations:
    """The observations of a policy in a recording.

    Args:
        wanted, cameras, names: see `match`.
        n_obs_steps: To, rows of an observation. At the start of an episode its first row is repeated, as in a rollout.

    Raises:
        DatasetError: the recording has not what the policy sees; the message lists both.
    """

    def __init__(
        self,
        recording: Recording,
        wanted: Mapping[str, tuple[int, ...]],
        cameras: Sequence[str],
        n_obs_steps: int,
        names: Mapping[str, str] | None = None,
    ):
        self.recording, self.n_obs_steps, self.cameras = recording, n_obs_steps, tuple(cameras)
        unknown = sorted(set(names or {}) - set(wanted))
        if unknown:
            raise DatasetError(
                f"observations_map names {', '.join(unknown)}, and the policy looks at {', '.join(wanted)}: write "
                "{<the policy's name>: <the recording's name>}"
            )
        matches = match(recording, wanted, cameras, names)
        if any(item.source is None for item in matches.values()):
            raise DatasetError(misfit(recording, matches))
        steps = recording.window_steps
        if steps is not None and steps < n_obs_steps:
            raise DatasetError(
                f"{recording.path} holds windows of {steps} observation steps, and the policy looks at {n_obs_steps}"
            )
        self.sources: dict[str, Source] = {name: item.source for name, item in matches.items() if item.source}
        self.notes: list[str] = []

    def ends(self, episodes: range) -> np.ndarray:
        """Last rows of all observations in these episodes: every row, of stored windows the last of each."""
        first = starts(self.recording)
        if self.recording.window_steps is not None:
            return first[1:][episodes.start : episodes.stop] - 1
        return np.arange(first[episodes.start], first[episodes.stop])

    def read(self, ends: np.ndarray) -> dict[str, np.ndarray]:
        """Observations [N, To, *shape] by the policy's names: vectors float32, images uint8 or float32 in [0, 1].

        Args:
            ends: int [N], ascending, some of `ends(...)`.

        Raises:
            DatasetError: rows are damaged or not finite, or images hold other numbers than pixels.
        """
        first = starts(self.recording)
        begins = first[np.searchsorted(first, ends, side="right") - 1]
        rows = np.maximum(ends[:, None] + np.arange(1 - self.n_obs_steps, 1), begins[:, None])  # [N, To]
        distinct, places = np.unique(rows, return_inverse=True)
        places = places.reshape(rows.shape)
        return {name: self._field(name, source, distinct)[places] for name, source in self.sources.items()}

    def _field(self, name: str, source: Source, rows: np.ndarray) -> np.ndarray:
        values = self.recording.read(source.name, rows)
        where = f"{self.recording.path}: {self.recording.fields[source.name].stored}"
        if name in self.cameras:
            values = self._pixels(name, where, values)
            return np.moveaxis(values, -1, -3) if source.channels_last else values
        values = values.reshape(len(values), -1)[:, source.columns].astype(np.float32)
        finite = np.isfinite(values).all(1)
        if not finite.all():
            row = int(rows[np.argmin(finite)])
            raise DatasetError(f"{where} is not finite in row {row} of all: repair it, or leave the episode out")
        return values

    def _pixels(self, name: str, where: str, images: np.ndarray) -> np.ndarray:
        """Images as a policy takes them. Training divides pixel values of any type by 255, so that is done here."""
        if images.dtype == np.uint8:
            return images
        low, high = float(images.min()), float(images.max())
        if images.dtype.kind == "f" and low >= 0 and high <= 1:
            return images.astype(np.float32)
        if not (low >= 0 and high <= 255 and np.array_equal(images, np.floor(images))):
            raise DatasetError(
                f"{where} holds images from {low:.4g} to {high:.4g}: store uint8, or floats from 0 to 1 in RGB"
            )
        note = f"{name}: {images.dtype} from 0 to 255 is read as uint8 pixels"
        if note not in self.notes:
            self.notes.append(note)
        return images.astype(np.uint8)


def misfit(recording: Recording, matches: Mapping[str, Match]) -> str:
    """Both sides, and what to write."""
    lines = [f"{recording.path} ({recording.kind}) does not hold what the policy sees:"]
    for name, item in matches.items():
        found = f"<- {item.source}" if item.source else f"missing: {item.problem}"
        lines.append(f"    {name} {list(item.shape)}  {found}")
    lines.append(f"It holds {offered(recording)}.")
    lines.append(f"Name other fields with observations_map='{suggested(recording, matches)}'")
    return "\n".join(lines)


def offered(recording: Recording) -> str:
    return ", ".join(f"{name} {field}" for name, field in recording.fields.items() if name != ACTION) or "nothing"


def suggested(recording: Recording, matches: Mapping[str, Match], names: Mapping[str, str] | None = None) -> str:
    """An `observations_map`: the `names` that match, and for the rest fields of the right shape, if there are any."""
    pairs = [f"{name}: {other}" for name, other in (names or {}).items() if matches[name].source is not None]
    for name, item in matches.items():
        if item.source is not None:
            continue
        shapes = {item.shape, (*item.shape[1:], item.shape[0])} if len(item.shape) == 3 else {item.shape}
        fitting = [other for other, field in recording.fields.items() if field.shape in shapes and other != ACTION]
        near = difflib.get_close_matches(name, fitting, 1, 0.0)
        pairs.append(f"{name}: {near[0] if near else '<field>'}")
    return "{" + ", ".join(pairs) + "}"
