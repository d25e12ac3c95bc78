"""MP4 files (H.264, yuv420p: what browsers and notebooks play) from rendered frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: options of the encoder: small files to look at ...
TO_WATCH = ("-crf", "20", "-preset", "veryfast")
#: ... or data to train on: closer to the frames, each found by decoding two at most, and none refers to a later one, so
#: that videos can be laid end to end
TO_TRAIN = ("-crf", "16", "-preset", "veryfast", "-g", "2", "-bf", "0")


class VideoWriter:
    """Writes frames uint8 RGB [H, W, 3] (H and W even) to `path`, an .mp4 file.

    The file is encoded under a temporary name in the same folder and takes its own name in `close`, so a file at `path`
    is always a complete video. `abort` leaves nothing behind.

    Args:
        encoding: options of ffmpeg for its encoder x264.
    """

    def __init__(self, path: str | Path, fps: float, encoding: Sequence[str] = TO_WATCH):
        self.path = Path(path)
        if self.path.suffix != ".mp4":
            raise ValueError(f"a video is written as .mp4, not {self.path.name!r}")
        self.fps = fps
        self._encoding = tuple(encoding)
        self._partial = self.path.with_name(f".{self.path.stem}.partial.mp4")  # ffmpeg goes by the suffix
        self._shape: tuple[int, ...] | None = None
        self._encoder = None

    def add(self, frame: np.ndarray) -> None:
        """Append one frame. The first one fixes the size."""
        if self._encoder is None:
            self._start(frame)
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ValueError(f"frame {frame.dtype} {frame.shape} in a video of uint8 {self._shape} frames")
        self._encoder.send(np.ascontiguousarray(frame))

    def close(self) -> Path:
        """Finish encoding and give the file its name. Returns `path`."""
        if self._encoder is None:
            raise ValueError(f"no frames for the video {self.path}")
        self._encoder.close()
        self._encoder = None
        if not self._partial.is_file() or self._partial.stat().st_size == 0:
            self._partial.unlink(missing_ok=True)
            raise OSError(f"ffmpeg wrote no video for {self.path}; is there space left in that folder?")
        os.replace(self._partial, self.path)
        return self.path

    def abort(self) -> None:
        """Stop encoding and remove what was written."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
        self._partial.unlink(missing_ok=True)

    def _start(self, frame: np.ndarray) -> None:
        # Imported for episodes that are recorded only: a worker that records none starts faster.
        import imageio_ffmpeg

        height, width = frame.shape[:2]
        if frame.ndim != 3 or frame.shape[2] != 3 or height % 2 or width % 2:
            raise ValueError(f"video frames are RGB [H, W, 3] with even H and W, not {frame.shape}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._shape = frame.shape
        self._encoder = imageio_ffmpeg.write_frames(
            str(self._partial),
            (width, height),
            fps=self.fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            quality=None,
            ffmpeg_log_level="error",
            # One thread: the workers already fill the cores.
            output_params=[*self._encoding, "-threads", "1", "-movflags", "+faststart"],
        )
        self._encoder.send(None)  # starts ffmpeg
