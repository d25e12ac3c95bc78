"""What zarr metadata may ask for. It is checked before anything is decoded, so that no data set can run code.

Storage formats 2 (`.zarray`) and 3 (`zarr.json`), see https://zarr-specs.readthedocs.io. Numbers and bool only: arrays
of Python objects are decoded by pickle or made of pointers. Codecs are those of `COMPRESSORS` and a few filters; no
codec is ever looked up by the name that a file gives. Consolidated metadata are not read: they are copies, which may
lie.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from diffusion_policy.dataset import zarr_metadata
from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.limits import LARGEST_CHUNK
from diffusion_policy.dataset.zarr_metadata import ArrayFormat, RefusedMetadata
from diffusion_policy.dataset.zarr_store import Store

METADATA_BYTES = 8 << 20  # the settings of scripted demonstrations list their seeds


def group_format(store: Store, name: str = "") -> int | None:
    """The storage format, 2 or 3, of the group `name`; None if there is none.

    Raises:
        DatasetError: its metadata are damaged, or there is an array in its place.
    """
    at = f"{name}/" if name else ""
    versions = [
        version
        for version, file, value in ((2, ".zgroup", None), (3, "zarr.json", "group"))
        if (metadata := read_json(store, at + file)) is not None
        and _is_format(store, at + file, metadata, version, value)
    ]
    if len(versions) > 1:
        raise DatasetError(
            f"{store.where}: {name or 'the group'} has metadata of the storage formats 2 and 3, which may say "
            "different things: remove those that do not belong to it"
        )
    return versions[0] if versions else None


def _is_format(store: Store, file: str, metadata: Mapping[str, Any], version: int, node_type: str | None) -> bool:
    if metadata.get("zarr_format") != version or (node_type and metadata.get("node_type") != node_type):
        wanted = f"zarr_format {version}" + (f" and node_type {node_type!r}" if node_type else "")
        raise DatasetError(f"{store.where}: {file} does not say {wanted}: it is damaged, or not what its place says")
    return True


def attributes(store: Store) -> dict[str, Any]:
    """The attributes of the outermost group."""
    if group_format(store) == 3:
        values = (read_json(store, "zarr.json") or {}).get("attributes", {})
    else:
        values = read_json(store, ".zattrs") or {}
    if not isinstance(values, dict):
        raise DatasetError(f"{store.where}: its attributes are no JSON object: it is damaged")
    return values


def array_format(store: Store, name: str) -> ArrayFormat | None:
    """How the array `name` is stored; None if there is none.

    Raises:
        DatasetError: its metadata are damaged, or ask for what is not on the lists.
    """
    file_2, file_3 = f"{name}/.zarray", f"{name}/zarr.json"
    version_2, version_3 = read_json(store, file_2), read_json(store, file_3)
    if version_2 is not None and version_3 is not None:
        raise DatasetError(
            f"{store.where}: {name} has metadata of the storage formats 2 and 3, which may say different "
            "things: remove those that do not belong to it"
        )
    if version_2 is None and version_3 is None:
        return None
    metadata, file = (version_2, file_2) if version_3 is None else (version_3, file_3)
    try:
        form = zarr_metadata.version_2(metadata) if version_3 is None else zarr_metadata.version_3(metadata)
        if form.chunk_bytes > LARGEST_CHUNK:
            raise RefusedMetadata(
                f"chunks of {form.chunk_bytes:,} bytes, and at most {LARGEST_CHUNK:,} are read: use smaller chunks"
            )
    except RefusedMetadata as error:
        raise DatasetError(f"{store.where}: {file} asks for {error}") from error
    return form


def read_json(store: Store, file: str) -> dict[str, Any] | None:
    content = store.read(file, METADATA_BYTES)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{store.where}: {file} is damaged, it is no JSON ({error}): get the data set again"
        ) from error
    if not isinstance(value, dict):
        raise DatasetError(f"{store.where}: {file} is damaged, it is no JSON object: get the data set again")
    return value
