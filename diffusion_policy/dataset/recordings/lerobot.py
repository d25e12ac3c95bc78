"""Recordings as LeRobot data sets, v2.0, v2.1 or v3.0: vectors in Parquet files, cameras as videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset import lerobot_format as form
from diffusion_policy.dataset.lerobot_files import LeRobotFiles
from diffusion_policy.dataset.lerobot_v2_files import open_lerobot
from diffusion_policy.dataset.lerobot_video import VideoReader
from diffusion_policy.dataset.recordings.contract import ACTION, Field, starts


class LeRobotRecording:
    """See `Recording`.

    Fields are called as the policy is likely to call them: `observation.images.top` is top, `observation.force` is
    force, `observation.state` is obs, and components of it that are called pose_0, pose_1, ... are pose, too. Their
    full names work as well.

    Raises:
        DatasetError: it is missing, damaged or of another version.
    """

    window_steps = None

    def __init__(self, path: str | Path):
        self._files: LeRobotFiles = open_lerobot(path)
        self.path, self.kind = self._files.path, f"LeRobot data set {self._files.info_version}"
        self.lengths = [span.stop - span.start for span in self._files.spans]
        self.fields: dict[str, Field] = {}
        self._sources: dict[str, tuple[str, slice]] = {}
        self._vectors: dict[str, np.ndarray] = {}
        for feature in self._files.vectors:
            short = {form.STATE: "obs", form.ACTION: ACTION}.get(feature, feature.removeprefix("observation."))
            self._add(short, feature)
        for feature in self._files.cameras:
            self._add(feature.removeprefix(form.IMAGES).removeprefix("observation."), feature)
        if form.STATE in self._files.vectors:
            for name, columns in _named_components(self._files.component_names(form.STATE)).items():
                if name not in self.fields:
                    self._add(name, form.STATE, columns)

    def _add(self, name: str, feature: str, columns: slice = slice(None)) -> None:
        if feature in self._files.cameras:
            field = Field((*self._files.size(feature), 3), np.dtype(np.uint8), feature)
        else:
            width = len(range(*columns.indices(self._files.width(feature))))
            part = "" if columns == slice(None) else f" {columns.start}:{columns.stop}"
            field = Field((width,), np.dtype(np.float32), f"{feature}{part}")
        self.fields[name] = field
        self._sources[name] = feature, columns

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        feature, columns = self._sources[name]
        if feature in self._files.cameras:
            return self._frames(feature, rows)
        if feature not in self._vectors:
            self._vectors |= self._files.read([feature])
        return self._vectors[feature][rows][:, columns]

    def _frames(self, camera: str, rows: np.ndarray) -> np.ndarray:
        first = starts(self)
        frames = np.empty((len(rows), *self._files.size(camera), 3), np.uint8)
        reader = VideoReader(self._files.size(camera))
        try:
            for index, row in enumerate(rows):  # ascending: each file is decoded once
                episode = int(np.searchsorted(first, row, side="right")) - 1
                path, begin = self._files.video(camera, episode)
                frames[index] = reader.read(path, begin + int(row - first[episode]), 1)[0]
        finally:
            reader.close()
        return frames


def _named_components(names: list[str]) -> dict[str, slice]:
    """['pose_0', 'pose_1', 'grip_0'] -> {'pose': slice(0, 2), 'grip': slice(2, 3)}."""
    found: dict[str, slice] = {}
    for place, text in enumerate(names):
        name, _, number = text.rpartition("_")
        if name and number == "0":
            found[name] = slice(place, place + 1)
        elif name in found and found[name].stop == place and number == str(place - found[name].start):
            found[name] = slice(found[name].start, place + 1)
    return found
