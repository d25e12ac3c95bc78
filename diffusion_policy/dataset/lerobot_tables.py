"""Columns of the Parquet files of a LeRobot data set, with what a file may claim checked before memory is set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.errors import UserError
from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.lerobot_format import pyarrow
from diffusion_policy.dataset.limits import Budget

AGAIN = "get the data set again"
# What the description in a file may take: far beyond that of any real one, and below what would fill a memory.
LONGEST_TEXT, MOST_ENTRIES = 1 << 26, 1 << 20
VALUE_BYTES = 8


def read_table(path: Path, columns: list[str], budget: Budget) -> Any:
    """These columns of a Parquet file, as a pyarrow table.

    Raises:
        DatasetError: it is missing or damaged, lacks a column or claims more than it can hold.
    """
    arrow = pyarrow()
    limits = {"thrift_string_size_limit": LONGEST_TEXT, "thrift_container_size_limit": MOST_ENTRIES}
    try:
        with arrow.parquet.ParquetFile(path, **limits) as file:
            present = set(file.schema_arrow.names)
            if missing := [name for name in columns if name not in present]:
                raise DatasetError(f"{path} has no column {', '.join(missing)}; it has {', '.join(sorted(present))}")
            budget.add(str(path), claimed_bytes(file.metadata, columns), path.stat().st_size)
            return file.read(columns=columns, use_threads=False)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: {AGAIN}") from error
    except (OSError, ValueError, TypeError, KeyError, MemoryError, arrow.ArrowException) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DatasetError(f"{path} is no readable Parquet file ({reason}): {AGAIN}") from error


def claimed_bytes(metadata: Any, columns: list[str]) -> int:
    """What these columns take in memory, as far as the file says."""
    claimed = 0
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            if any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in columns):
                claimed += max(chunk.num_values, 0) * VALUE_BYTES + max(chunk.total_uncompressed_size, 0)
    return claimed


def numbers_of(path: Path, table: Any, name: str) -> np.ndarray:
    """A column of plain numbers [N]. Raises DatasetError for others, and for empty values."""
    types, column = pyarrow().types, table.column(name)
    if column.null_count or not (types.is_integer(column.type) or types.is_floating(column.type)):
        raise DatasetError(f"{path}: {name} is {column.type} with {column.null_count} empty values: {AGAIN}")
    return column.to_numpy()


def vectors_of(path: Path, table: Any, name: str, width: int) -> np.ndarray:
    """A column of vectors of `width` numbers as float32 [N, D].

    Raises:
        DatasetError: some are longer, shorter, empty or of other things.
    """
    arrow = pyarrow()
    types, column = arrow.types, table.column(name)
    wrong = DatasetError(f"{path}: {name} ({column.type}) is not {width} numbers in every row, as it should: {AGAIN}")
    is_list = types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type)
    if column.null_count or (not is_list and width != 1):
        raise wrong
    parts = []
    for chunk in column.chunks:
        flat = chunk.flatten() if is_list else chunk
        # Fixed or not, a list's length may be another in each chunk of a damaged file.
        lengths = arrow.compute.list_value_length(chunk) if is_list else None
        if lengths is not None and not np.all(lengths.to_numpy(zero_copy_only=False) == width):
            raise wrong
        if flat.null_count or not (types.is_integer(flat.type) or types.is_floating(flat.type)):
            raise wrong
        parts.append(flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width))
    return np.concatenate(parts) if parts else np.zeros((0, width), dtype=np.float32)
