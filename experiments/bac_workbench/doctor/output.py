"""Checks of what experiments write beside numbers: videos and Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np

from bac_workbench.doctor.rows import FAIL, MISSING, PASS, Row, install_extra, pip_install

FRAMES, SIZE = 6, (48, 64)


def video() -> list[Row]:
    """Writes a clip with the project's writer and reads it back."""
    import imageio_ffmpeg

    from diffusion_policy.env_runner.video import VideoWriter

    levels = [30 + 35 * index for index in range(FRAMES)]
    with tempfile.TemporaryDirectory() as folder:
        writer = VideoWriter(Path(folder, "clip.mp4"), fps=10)
        for level in levels:
            writer.add(np.full((*SIZE, 3), level, np.uint8))
        path = writer.close()
        reader = imageio_ffmpeg.read_frames(str(path))
        next(reader)  # the clip's description
        frames = [np.frombuffer(frame, np.uint8).reshape(*SIZE, 3) for frame in reader]
    version = imageio_ffmpeg.get_ffmpeg_version()
    wrong = len(frames) != FRAMES or any(abs(frame.mean() - level) > 5 for frame, level in zip(frames, levels))
    found = f"ffmpeg {version}: {len(frames)} of {FRAMES} frames read back"
    if wrong:
        repair = pip_install("--force-reinstall imageio-ffmpeg; without it: eval.n_videos=0")
        return [Row("video", f"{found}, not as they were written", FAIL, repair)]
    return [Row("video", found, PASS)]


def weights_and_biases() -> list[Row]:
    """Whether an offline run starts, and whether an online one could."""
    if importlib.util.find_spec("wandb") is None:
        return [
            Row("wandb", "optional: wandb.mode=disabled is the default", MISSING, install_extra("wandb"), needed=False)
        ]
    with tempfile.TemporaryDirectory() as folder:
        # Read by wandb when it is imported: nothing of this run stays, and nothing is printed.
        os.environ.update(WANDB_DIR=folder, WANDB_CACHE_DIR=folder, WANDB_DATA_DIR=folder, WANDB_SILENT="true")
        import wandb

        from bac_workbench.settings.task import Wandb
        from bac_workbench.tracking.identity import Identity
        from bac_workbench.tracking.run import Tracker, logged_in
        from diffusion_policy.common.config import ConfigError

        try:
            login = "logged in" if logged_in() else "not logged in (`wandb login`, or wandb.mode=offline)"
        except ConfigError as error:
            login = str(error)

        settings, failures = Wandb(mode="offline", project="doctor"), []
        with Tracker(settings, Identity.of("this machine", "doctor", "check", []), {}, failures.append) as run:
            run.start()
            run.log({"check": 1.0})
    if failures:
        return [Row("wandb", failures[0], FAIL, install_extra("wandb"))]
    return [Row("wandb", f"{wandb.__version__}, {login}, an offline run starts", PASS)]
