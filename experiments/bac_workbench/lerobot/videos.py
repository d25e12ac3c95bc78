"""Videos of several episodes laid end to end, without encoding them anew."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.common.errors import UserError


class VideoError(UserError, RuntimeError):
    """ffmpeg did not write a video."""


def concatenate(videos: Sequence[Path], target: Path) -> None:
    """Writes the frames of `videos`, which have one size, one rate and no frames that refer to later ones, to `target`.

    Frame n of all is at n / fps. The same videos give the same bytes.
    """
    import imageio_ffmpeg

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as listing:
        for video in videos:
            escaped = str(video.resolve()).replace("'", "'\\''")
            listing.write(f"file '{escaped}'\n")
        listing.flush()
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", "-f", "concat", "-safe", "0"]
        command += ["-i", listing.name, "-c", "copy", "-fflags", "+bitexact", "-movflags", "+faststart", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or not target.is_file():
        raise VideoError(f"ffmpeg could not write {target}: {done.stderr.strip()[-500:] or 'it gave no reason'}")
