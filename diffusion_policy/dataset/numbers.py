"""Checks of the numbers of demonstrations: what no training can use is found when it is read, and its place is
named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffusion_policy.dataset.errors import DatasetError

BLOCK_BYTES = 4 << 20  # looked at together, so that no second array of the same size is needed


def require_finite(where: object, array: str, values: np.ndarray, episode_ends: np.ndarray | None = None) -> None:
    """Raises DatasetError for numbers of `values` [N, ...] that are NaN or infinite, and names the first one.

    Args:
        where: the file, and `array` in it.
        episode_ends: [E], to name the episode as well as the row.
    """
    place = first_not_finite(values, episode_ends)
    if place is not None:
        raise DatasetError(
            f"{where} holds {array} that is not finite: {place}. Repair the numbers, or leave the episode out"
        )


def first_not_finite(values: np.ndarray, episode_ends: np.ndarray | None = None) -> str | None:
    """The first number that is NaN or infinite and its place, such as "nan in episode 3, row 12 (row 512 of all),
    column 0"."""
    if values.dtype.kind != "f":
        return None
    step = max(1, BLOCK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(values), step):
        block = values[start : start + step]
        if not np.isfinite(block).all():
            place = tuple(int(index) for index in np.argwhere(~np.isfinite(block))[0])
            return f"{block[place]} in {place_of(start + place[0], episode_ends)}{_column(place[1:])}"
    return None


def place_of(row: int, episode_ends: np.ndarray | None = None) -> str:
    """ "episode 3, row 12 (row 512 of all)"; without `episode_ends` "row 512"."""
    if episode_ends is None:
        return f"row {row}"
    episode = int(np.searchsorted(episode_ends, row, side="right"))
    start = int(episode_ends[episode - 1]) if episode else 0
    return f"episode {episode}, row {row - start} (row {row} of all)"


def require_real(what: str, values: Any) -> None:
    """Raises DatasetError for a type in which neither observations nor actions are recorded.

    Args:
        values: an array, or what has its shape and dtype.
    """
    if values.dtype.kind not in "fiu" or values.dtype.itemsize == 1:
        raise DatasetError(
            f"{what} is {values.dtype} {list(values.shape)}, and observations and actions are numbers of at least "
            "16 bits: store it as float32"
        )


def to_pixels(what: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """Turns pixel values 0..255 of any type, of which the first row has the given number, into uint8.

    The function raises DatasetError, naming `what` and the row, for other values.
    """

    def convert(values: np.ndarray, start: int) -> np.ndarray:
        if values.dtype == np.uint8:
            return values
        with np.errstate(invalid="ignore"):  # what does not fit into uint8 comes out different
            pixels = values.astype(np.uint8)
        if not np.array_equal(pixels, values):
            raise DatasetError(_no_pixels(what, values, pixels, start))
        return pixels

    return convert


def _no_pixels(what: str, values: np.ndarray, pixels: np.ndarray, start: int) -> str:
    place = tuple(int(index) for index in np.argwhere(pixels != values)[0])
    message = (
        f"{what} holds other values than whole numbers 0..255, in rows {start} to {start + len(values) - 1}: the first "
        f"is {values[place]} in row {start + place[0]}"
    )
    if values.min() >= 0 and values.max() <= 1:
        return f"{message}. These images are of the range 0..1, multiply them by 255 and store them as uint8"
    if values.min() >= -1 and values.max() <= 1:
        return f"{message}. These images are of the range -1..1, store 0..255 as uint8"
    return message


def _column(place: tuple[int, ...]) -> str:
    if not place:
        return ""
    return f", column {place[0]}" if len(place) == 1 else f", place {list(place)}"
