"""Rows of a benchmark or a tuning, as tables and numbers of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

#: of each method that was timed
TIMES = ("ms_p50", "speedup", "speedup_same_runtime")


def row_table(wandb: ModuleType, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a table: their plain values, those of a group such as `levers` as `levers/runtime`. What a row lacks is
    empty."""
    flat = [flattened(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    return wandb.Table(
        columns=columns, data=[[row.get(name) for name in columns] for row in flat], allow_mixed_types=True
    )


def flattened(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Texts and numbers of a record and of the records in it; lists and None are left out."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            values |= flattened(value, f"{prefix}{name}/")
        elif isinstance(value, (str, int, float)):
            values[f"{prefix}{name}"] = value
    return values


def benchmark_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`ms_p50/bac_s10@ddpm100 planned batch 1` and so on.

    Args:
        rows: of benchmark.json.
    """
    return {
        f"{name}/{row['method']}@{row['sampler']} {row['runtime']} batch {row['batch']}": row[name]
        for row in rows
        for name in TIMES
    }


def tuned_summary(method: str, claim: Any, times: Mapping[str, Any]) -> dict[str, Any]:
    """What a tuning chose and what was proven of it; without a claim it is the full policy.

    Args:
        claim: a `bac.tuned.Claim` or None.
        times: of the chosen setting, milliseconds of a chunk and the like.
    """
    proven = {} if claim is None else {"difference": claim.difference, "low": claim.low, "high": claim.high}
    proven |= {} if claim is None else {"margin": claim.margin, "pairs": claim.n, "p_value": claim.p_value}
    return {"method": method, "proven": claim is not None, **{f"proof/{k}": v for k, v in proven.items()}, **times}
