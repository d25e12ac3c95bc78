"""Hand-made inputs: small files that ask for much, or that would run code if anything did."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stress.fuzz import hostile_data, hostile_policies
from stress.fuzz.loaders import Changed

BY_HAND: dict[str, Callable[[dict[str, bytes]], Iterator[tuple[str, Changed]]]] = {
    "pickles": hostile_policies.pickles,
    "checkpoints": hostile_policies.checkpoints,
    "configs": hostile_policies.configs,
    "schedules": hostile_policies.schedules,
    "profiles": hostile_policies.profiles,
    "evaluations": hostile_policies.evaluations,
    "comparisons": hostile_policies.comparisons,
    "zarr 2": hostile_data.zarr_2,
    "zarr 3": hostile_data.zarr_3,
    "archives": hostile_data.archives,
    "hdf5": hostile_data.hdf5,
    "npy": hostile_data.npy,
}
_made: dict[tuple[str, ...], list[tuple[str, Changed]]] = {}


def by_hand(names: tuple[str, ...], files: dict[str, bytes]) -> list[tuple[str, Changed]]:
    """(title, changed files) of all hand-made inputs of these groups; made once, before the children are forked."""
    if names not in _made:
        _made[names] = [made for name in names for made in BY_HAND[name](files)]
    return _made[names]
