"""Earlier names that users have typed, and what they are called now.

They are refused; the message gives the present one.
"""

from __future__ import annotations

# Settings. One that is longer counts before one that it begins with; what follows stays as it is.
SETTINGS = {
    "objective.also": "objective.auxiliary_targets",
    "objective.finest": "objective.min_scale",
    "objective.views": "objective.n_crops",
}


def present_name(setting: str) -> str | None:
    """What an earlier name of a setting (task.adapter.max_steps) is called now; None for any other name."""
    for earlier in sorted(SETTINGS, key=len, reverse=True):
        if setting == earlier or setting.startswith(f"{earlier}."):
            return SETTINGS[earlier] + setting.removeprefix(earlier)
    return None
