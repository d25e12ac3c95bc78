"""What a tuning has measured and fixed so far, in files: a killed one goes on from there with the same decisions.

`measured.json` holds times and distances, which would be others if they were measured again; `plan.json` in the folder
of a block of seeds says which sequence of tests these seeds are for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bac_workbench.settings.tuning import BLOCK
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import write_json


def read_record(path: Path) -> dict[str, Any] | None:
    """A JSON object, None where there is no file.

    Raises:
        ConfigError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_bytes())
        if not isinstance(stored, dict):
            raise ValueError("no record of fields")
    except (ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{path} is damaged ({error}): remove it, after which it is made anew") from error
    return stored


def recall(path: Path, of: dict[str, Any], stage: str) -> Any | None:
    """What a stage measured, if it was of the same things on the same machine; else None."""
    stored = (read_record(path) or {}).get(stage)
    return (
        stored["result"] if isinstance(stored, dict) and stored.get("of") == _plain(of) and "result" in stored else None
    )


def remember(path: Path, of: dict[str, Any], stage: str, result: Any) -> None:
    write_json(path, {**(read_record(path) or {}), stage: {"of": of, "result": result}})


def certification_block(folder: Path, plan: dict[str, Any], first: int) -> tuple[Path, int, int]:
    """The block of seeds that a sequence of tests is proven on: its own, which no other sequence has seen.

    Whoever looks at a verdict, changes something and tries again on the same seeds would find a false proof sooner or
    later. So another plan gets the next block.

    Args:
        folder: holds a folder for each block, named by its first seed.
        plan: the sequence and everything that decides the tests.
        first: seed of the first block.

    Returns:
        The block's folder, its first seed, and how many other plans have been tested so far.
    """
    starts = sorted(int(path.parent.name) for path in folder.glob("*/plan.json") if path.parent.name.isdecimal())
    for start in starts:
        if read_record(folder / str(start) / "plan.json") == _plain(plan):
            return folder / str(start), start, starts.index(start)
    start = first
    while start in starts:
        start += BLOCK
    if start + BLOCK > 2**32:
        raise ConfigError(f"no seeds are left after {start}: choose a smaller certification.start_seed=")
    write_json(folder / str(start) / "plan.json", plan)
    return folder / str(start), start, len(starts)


def _plain(value: Any) -> Any:
    """As it is read back."""
    return json.loads(json.dumps(value))
