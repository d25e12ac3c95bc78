"""Episodes written down frame by frame while a policy acts: what it could see, what was executed, what came of it.

A record is the folder of one episode, complete or absent: `steps.npz` and a video for each camera. Frame t holds the
observation before action t, so that frames, states and actions of one number belong together. The actions of a chunk
that were not executed never reach an environment, and so no record.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from diffusion_policy.common.errors import InputError
from diffusion_policy.common.files import folder_to_disk, temporary_name
from diffusion_policy.env_runner import contract
from diffusion_policy.env_runner.observation import Observation
from diffusion_policy.env_runner.video import TO_TRAIN, VideoWriter

STEPS, SCENE = "steps.npz", "scene"
LEVELS = 256  # of a colour


def record_folder(records: str | Path, seed: int) -> Path:
    """Where the record of the episode of `seed` is."""
    return Path(records) / f"seed_{seed:010d}"


def by_name(observation: Observation) -> dict[str, np.ndarray]:
    """Arrays by name; a single array is "obs"."""
    return dict(observation) if isinstance(observation, Mapping) else {"obs": observation}


def to_pixels(image: np.ndarray) -> np.ndarray:
    """Image [C, H, W] in [0, 1], as policies see it -> uint8 [H, W, C]."""
    return np.ascontiguousarray(np.moveaxis(np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8), 0, -1))


@dataclass(frozen=True)
class Record:
    """One recorded episode of T frames.

    Attributes:
        vectors: observations float32 [T, D] by name.
        action: float32 [T, Da], what was executed after frame t.
        reward: float32 [T], what action t brought; `success`: bool [T], whether the task was done after it.
        videos: paths by camera.
        colours: by camera, int64 [3, 256]: how often each level of red, green and blue occurs in all frames.
        sizes: by camera, height and width in pixels.
    """

    vectors: Mapping[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    success: np.ndarray
    videos: Mapping[str, Path]
    colours: Mapping[str, np.ndarray]
    sizes: Mapping[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.action)

    @classmethod
    def load(cls, folder: str | Path) -> Record:
        """The record in `folder`. Raises InputError if it is not there or damaged."""
        folder = Path(folder)
        try:
            with np.load(folder / STEPS, allow_pickle=False) as arrays:
                groups: dict[str, dict[str, np.ndarray]] = {"vector": {}, "colours": {}, "size": {}, "step": {}}
                for key in arrays.files:
                    group, _, name = key.partition("/")
                    groups[group][name] = arrays[key]
            record = cls(
                groups["vector"],
                **{name: groups["step"][name] for name in ("action", "reward", "success")},
                videos={name: folder / f"{name}.mp4" for name in groups["colours"]},
                colours=groups["colours"],
                sizes={name: (int(size[0]), int(size[1])) for name, size in groups["size"].items()},
            )
            missing = [path.name for path in record.videos.values() if not path.is_file()]
            if missing:
                raise ValueError(f"{', '.join(missing)} is missing")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"the recorded episode {folder} is not there or damaged ({error}): remove the folder that holds the "
                "records, which starts the collection anew"
            ) from error
        return record


class RecordingEnv(gymnasium.Wrapper):
    """Writes the record of every episode that ends to `records`; one that is given up leaves nothing.

    Args:
        records: folder of the records, see `record_folder`.
        fps: of the videos.
        max_steps: the episode is over after so many steps, whatever `env` says.
        view: what the policy sees of an observation; None: all of it. Its images [C, H, W] become videos.
        scene: whether `render()` becomes a video, too: the camera "scene".
    """

    def __init__(
        self,
        env: gymnasium.Env,
        records: str | Path,
        fps: float,
        max_steps: int,
        view: Callable[[Observation], Observation] | None = None,
        scene: bool = True,
    ):
        super().__init__(env)
        self.records, self.fps, self.max_steps = Path(records), fps, max_steps
        self._view, self._scene = view, scene
        self._work: Path | None = None  # where the running episode is written to

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        self._give_up()
        self._draw_everything()
        obs, info = self.env.reset(seed=seed, options=options)
        self._target = record_folder(self.records, seed)
        self.records.mkdir(parents=True, exist_ok=True)
        self._work = temporary_name(self._target)
        self._work.mkdir()
        self._vectors: dict[str, list[np.ndarray]] = {}
        self._steps: dict[str, list[Any]] = {"action": [], "reward": [], "success": []}
        self._writers: dict[str, VideoWriter] = {}
        self._colours: dict[str, np.ndarray] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._seen = obs
        return obs, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict]:
        self._draw_everything()
        self._write_frame()
        obs, reward, terminated, truncated, info = answer = self.env.step(action)
        for name, value in (("action", np.array(action)), ("reward", reward), ("success", info["is_success"])):
            self._steps[name].append(value)
        self._seen = obs
        if terminated or truncated or len(self._steps["reward"]) >= self.max_steps:
            self._finish()
        return answer

    def close(self) -> None:
        self._give_up()
        self.env.close()

    def _draw_everything(self) -> None:
        """The loop that runs the episode lets those images be drawn that the policy sees; a record needs all."""
        if hasattr(self.env.unwrapped, "frames"):
            self.env.unwrapped.frames = True

    def _write_frame(self) -> None:
        seen = by_name(self._seen if self._view is None else self._view(self._seen))
        images = {SCENE: contract.frame(self.env)} if self._scene else {}
        for name, value in seen.items():
            if np.ndim(value) == 3:
                images[name] = to_pixels(value)
            else:
                self._vectors.setdefault(name, []).append(np.array(value, dtype=np.float32))
        for name, pixels in images.items():
            if name not in self._writers:
                self._writers[name] = VideoWriter(self._work / f"{name}.mp4", self.fps, TO_TRAIN)
                self._colours[name] = np.zeros((3, LEVELS), dtype=np.int64)
                self._sizes[name] = pixels.shape[:2]
            self._writers[name].add(pixels)
            for channel, counts in enumerate(self._colours[name]):
                counts += np.bincount(pixels[..., channel].ravel(), minlength=LEVELS)

    def _finish(self) -> None:
        for writer in self._writers.values():
            writer.close()
        kinds = {"action": np.float32, "reward": np.float32, "success": bool}
        arrays = {f"step/{name}": np.array(values, dtype=kinds[name]) for name, values in self._steps.items()}
        arrays |= {f"vector/{name}": np.stack(rows) for name, rows in self._vectors.items()}
        arrays |= {f"colours/{name}": counts for name, counts in self._colours.items()}
        arrays |= {f"size/{name}": np.array(size) for name, size in self._sizes.items()}
        np.savez(self._work / STEPS, **arrays)
        folder_to_disk(self._work)
        # One that is there is of a run that was stopped before it counted the episode.
        shutil.rmtree(self._target, ignore_errors=True)
        self._work.replace(self._target)
        self._work, self._writers = None, {}

    def _give_up(self) -> None:
        if self._work is None:
            return
        for writer in self._writers.values():
            writer.abort()
        shutil.rmtree(self._work, ignore_errors=True)
        self._work, self._writers = None, {}
