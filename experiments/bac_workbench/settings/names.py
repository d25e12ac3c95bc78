"""Earlier names that users have typed, and what they are called now.

They are refused; the message gives the present one.
"""

from __future__ import annotations

# Tasks, task=<name>: a task has the name of its file.
TASKS = {name: f"{name}_scripted_demos" for name in ("can", "lift", "square", "kitchen")}

# Settings. One that is longer counts before one that it begins with; what follows stays as it is.
SETTINGS = {
    "task.adapter.n_obs_steps": "task.n_obs_steps",
    "task.adapter.n_action_steps": "task.n_action_steps",
    "task.adapter.n_latency_steps": "task.n_latency_steps",
    "task.adapter.n_test": "eval.n_test",
    "task.adapter.n_train": "eval.n_train",
    "task.adapter.test_start_seed": "task.seeds.test_start_seed",
    "task.adapter.train_start_seed": "task.seeds.train_start_seed",
    "task.adapter.name": "task.name",
    "task.adapter": "task.environment",
    "task.demos.demonstrator.excursion_rate": "task.demos.demonstrator.perturbation_rate",
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
