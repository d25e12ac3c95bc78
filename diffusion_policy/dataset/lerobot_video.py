"""Frames of the videos of a LeRobot data set, read from front to back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.errors import DatasetError


class VideoReader:
    """Reads episodes of one camera. Those of one file are decoded once if they are asked for in their order.

    Args:
        size: height and width of the frames.
    """

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self._path: Path | None = None
        self._frames: Iterator[bytes] | None = None
        self._next = 0  # number of the frame that comes next

    def read(self, path: Path, first: int, count: int) -> np.ndarray:
        """The frames `first`, `first` + 1, ... of a video, uint8 RGB [count, H, W, 3].

        Raises:
            DatasetError: it is damaged, of another size, or has fewer frames.
        """
        if path != self._path or first < self._next:
            self._open(path)
        images = np.empty((count, *self.size, 3), dtype=np.uint8)
        try:
            while self._next < first + count:
                frame = next(self._frames)
                if self._next >= first:
                    images[self._next - first] = np.frombuffer(frame, dtype=np.uint8).reshape(images.shape[1:])
                self._next += 1
        except (StopIteration, RuntimeError, OSError, ValueError) as error:
            found = self._next
            self.close()
            raise DatasetError(
                f"{path} has {found} readable frames, and an episode needs those up to {first + count - 1}: "
                "get the data set again"
            ) from error
        return images

    def close(self) -> None:
        """Ends the decoder."""
        if self._frames is not None:
            self._frames.close()
        self._path, self._frames, self._next = None, None, 0

    def _open(self, path: Path) -> None:
        import imageio_ffmpeg

        self.close()
        # As what its name says, and each frame once: a file that is a list of other files, say, is none.
        frames = imageio_ffmpeg.read_frames(
            str(path), input_params=["-f", "mp4"], output_params=["-fps_mode", "passthrough"]
        )
        try:
            size = tuple(reversed(next(frames)["size"]))
        except (StopIteration, RuntimeError, OSError, KeyError, ValueError, IndexError) as error:
            raise DatasetError(f"{path} is no readable video: get the data set again") from error
        if size != self.size:
            frames.close()
            raise DatasetError(f"{path} has frames of {size[0]} x {size[1]} instead of {self.size[0]} x {self.size[1]}")
        self._path, self._frames, self._next = path, frames, 0
