"""A profile: similarity matrices of every block between all denoising steps, and what they are of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bac import profile_files
from bac.profile_info import ProfileError, ProfileInfo, check_blocks
from bac.similarity import METRICS
from bac.strict_json import short_repr, some

__all__ = ["Profile", "ProfileError", "ProfileInfo"]

ASYMMETRY = 1e-4  # allowed difference of an entry and its mirror image, relative to the largest entry


@dataclass(frozen=True)
class Profile:
    """Similarity matrices: metric -> block -> float64 [K, K], averaged over (observation, noise seed) pairs.

    Raises:
        ProfileError: on construction, unless every metric has a finite, symmetric [K, K] matrix of every block,
            K = `info.steps`, with blocks in execution order.
    """

    info: ProfileInfo
    matrices: dict[str, dict[str, np.ndarray]]

    def __post_init__(self) -> None:
        missing, unknown = sorted(set(METRICS) - set(self.matrices)), sorted(set(self.matrices) - set(METRICS))
        if missing or unknown:
            parts = ([f"missing: {some(missing)}"] if missing else []) + (
                [f"unknown: {some(unknown)}"] if unknown else []
            )
            raise ProfileError(f"the metrics of a profile must be {', '.join(METRICS)} ({'; '.join(parts)})")
        blocks = tuple(next(iter(self.matrices.values())))
        check_blocks(blocks)
        for metric, by_block in self.matrices.items():
            if tuple(by_block) != blocks:
                raise ProfileError(
                    f"metric {metric} has other blocks than {next(iter(self.matrices))}, or in another order"
                )
            for block, matrix in by_block.items():
                _check_matrix(f"{metric} of {block}", np.asarray(matrix), self.info.steps, metric)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Block names in execution order."""
        return tuple(next(iter(self.matrices.values())))

    def save(self, folder: Path) -> None:
        """Writes `profile.npz` (arrays `metric|block`, float32) and then `profile.json`, each complete or not at all.

        An older profile stops counting before its first file is replaced: a kill in between leaves no profile, never a
        mixed one.
        """
        profile_files.save(self.info, self.matrices, Path(folder))

    @staticmethod
    def read_info(folder: Path) -> ProfileInfo | None:
        """What a stored profile is of, or None if there is none (no `profile.json`, which is written last).

        Raises:
            ProfileError: the description is damaged, or its matrices are missing.
        """
        return profile_files.read_info(Path(folder))

    @classmethod
    def load(cls, folder: Path) -> Profile:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no profile in `folder`.
            ProfileError: it is damaged or holds something else; the message names the file.
        """
        return profile_files.load(Path(folder), cls)


def _check_matrix(what: str, matrix: np.ndarray, steps: int, metric: str) -> None:
    if matrix.shape != (steps, steps) or matrix.dtype.kind != "f":
        raise ProfileError(f"{what} must be float [{steps}, {steps}], got {matrix.dtype} with shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ProfileError(f"{what} holds NaN or infinite values")
    size = max(1e-6, float(np.abs(matrix).max()))
    if size > float(np.finfo(np.float32).max):
        raise ProfileError(f"{what} holds {size:.3g}, more than its stored form can")
    if np.abs(matrix - matrix.T).max() > ASYMMETRY * size:
        raise ProfileError(f"{what} is not symmetric")
    if metric == "cosine" and size > 1 + ASYMMETRY:
        raise ProfileError(f"{what} holds {short_repr(float(size))}, which is no cosine")
    if not METRICS[metric].maximise and matrix.min() < -ASYMMETRY * size:
        raise ProfileError(f"{what} holds a negative distance")
