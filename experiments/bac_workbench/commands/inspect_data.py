"""What a recording holds, and how it maps to a policy's observation.

    bac data inspect data.hdf5
    bac data inspect data.zarr checkpoint=latest.ckpt
    bac data inspect lerobot:datas/mine checkpoint=latest.ckpt observations_map='{camera0: image}'

Reads HDF5 in robomimic's layout, replay buffers in zarr, LeRobot data sets (v2.0, v2.1, v3.0) and .npz files of
windows. With checkpoint= it says which field is which input of the policy, and the commands to use.
Settings: checkpoint, observations_map, weights=ema (or raw).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from bac_workbench.console import readable_errors
from bac_workbench.settings import read_arguments, wants_help
from diffusion_policy.common.config import ConfigError

DEFAULTS = {"checkpoint": None, "observations_map": None, "weights": "ema"}


def main() -> None:
    if wants_help(sys.argv[1:]):
        print(__doc__)
        return
    with readable_errors():
        inspect_data(sys.argv[1:])


def inspect_data(arguments: Sequence[str]) -> None:
    names = [text for text in arguments if text.partition("=")[0] not in DEFAULTS]
    settings = read_arguments([text for text in arguments if text not in names], "inspect_data", DEFAULTS)
    if len(names) != 1 or names[0].startswith("-"):
        raise ConfigError("bac data inspect takes one file or folder, such as data.hdf5, data.zarr or lerobot:<folder>")

    from diffusion_policy.dataset.recordings.opening import open_recording

    recording = open_recording(names[0])
    print("\n".join(contents(recording)))
    if settings["checkpoint"] is not None:
        from bac_workbench.locations import shipped
        from diffusion_policy.common.checkpoint import load_policy

        loaded = load_policy(shipped(settings["checkpoint"]), settings["weights"])
        print("\n".join(mapping(names[0], recording, loaded, settings)))


def contents(recording: Any) -> list[str]:
    """What is there, for people."""
    unit = "episodes" if recording.window_steps is None else f"windows of {recording.window_steps} observation steps"
    lengths = recording.lengths
    rows = f"{sum(lengths)} rows, {min(lengths)} to {max(lengths)} in each"
    lines = [f"{recording.path}: {recording.kind}", f"{len(lengths)} {unit} ({rows})", ""]
    width = max(map(len, recording.fields))
    lines += [f"  {name:<{width}}  {field!s:<22}  {field.stored}" for name, field in recording.fields.items()]
    return lines


def mapping(text: str, recording: Any, loaded: Any, settings: dict[str, Any]) -> list[str]:
    """Which field is which input of the policy, and what to type next."""
    from diffusion_policy.dataset.recordings.windows import match, suggested

    policy, names = loaded.policy, settings["observations_map"]
    matches = match(recording, policy.obs_shapes, policy.cameras, names)
    lines = ["", f"{loaded}", f"It looks at {policy.n_obs_steps} observation steps of"]
    width = max(map(len, matches))
    for name, item in matches.items():
        found = f"<- {item.source}" if item.source else f"missing: {item.problem}"
        lines.append(f"  {name:<{width}}  {list(item.shape)!s:<16}  {found}")
    whole = all(item.source for item in matches.values())
    mapped = suggested(recording, matches, names) if names or not whole else ""
    words = [f"checkpoint={settings['checkpoint']}", f"observations={text}"]
    words += [f"observations_map={mapped}"] if mapped else []
    words += ["weights=raw"] if settings["weights"] == "raw" else []
    shown = " ".join(shlex.quote(word) for word in words)
    lines += ["", "next:" if whole else "next, if these are the fields that you mean:"]
    lines += [f"  bac profile {shown} output=mine/", f"  bac check {shown} output=mine/ cache=bac"]
    return lines
