"""Settings that earlier versions had under another name. They are refused with the name they have now."""

from __future__ import annotations

RENAMED = {
    "objective.also": "objective.auxiliary_targets",
    "objective.finest": "objective.min_scale",
    "objective.views": "objective.n_crops",
}


def new_name(setting: str) -> str | None:
    """The present name of a setting, or of one below it; None if it was not renamed."""
    for old, new in RENAMED.items():
        if setting == old or setting.startswith(f"{old}."):
            return new + setting[len(old) :]
    return None
