"""A data file of robomimic with absolute actions, made from the one with relative actions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.common.files import atomic_path
from diffusion_policy.dataset.hdf5_files import open_group, read_text
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_files import (
    check_environment,
    demo_names,
    open_demonstrations,
    readable,
    recorded_environment,
)
from diffusion_policy.demos.action_converter import ActionConverter
from diffusion_policy.demos.collect import check_numbers, record_missing
from diffusion_policy.demos.parts import Parts, remove_parts
from diffusion_policy.env.extras import import_extra
from diffusion_policy.env.offscreen import check_backend
from diffusion_policy.env.robomimic.definition import task_named
from diffusion_policy.env.robomimic.simulation import EXTRA, import_robosuite

CONVERTED = "absolute_actions"  # attribute of a converted file and its demonstrations: how it was made, what they do


@dataclass(frozen=True)
class Conversion:
    """What the absolute actions of one demonstration do; see `ActionConverter.record`. None: not evaluated."""

    demo: str
    relative_error: tuple[float, float] | None = None
    absolute_error: tuple[float, float] | None = None
    success: bool | None = None

    def __str__(self) -> str:
        if self.success is None:
            return f"{self.demo}: converted"
        (position, angle), (recorded_position, recorded_angle) = self.absolute_error, self.relative_error
        return (
            f"{self.demo}: a step ends at most {1000 * position:.3f} mm and {angle:.5f} rad from the recording "
            f"(with the recorded action {1000 * recorded_position:.3f} mm, {recorded_angle:.5f} rad); "
            f"the replay {'succeeds' if self.success else 'FAILS'}"
        )


def convert_actions(
    task: str,
    source: str | Path,
    output: str | Path,
    n_workers: int | None = None,
    evaluate: bool = True,
    on_demo: Callable[[Conversion, int], None] | None = None,
) -> list[Conversion]:
    """Writes a copy of the data file `source` with absolute actions, see `ActionConverter`.

    Finished demonstrations lie in `<output>.parts` until all are there; the same call goes on with them.

    Args:
        output: appears complete or not at all.
        n_workers: processes; None: one per core, 0: this one.
        on_demo: called after every demonstration with what was measured and how many there are.

    Raises:
        LockedError: another process writes `output`.
        DatasetError: `source` is missing, damaged, of another task or not relative; `output` is there and was not made
            from it like this; a worker died.
        MissingExtraError: the simulator is not installed.
    """
    from diffusion_policy.common.lock import (
        locked_output,  # here: workers import this module, and need none of its imports
    )

    source, output = Path(source), Path(output)
    check_numbers(n_workers=(n_workers, 0))
    with open_demonstrations(source, "Absolute actions are made from this file") as file, readable(source):
        check_environment(file, source, task_named(task))
        demos = demo_names(file)
    with locked_output(output, f"conversion of {source.name}"):
        return _convert(task, source, output, demos, n_workers, evaluate, on_demo)


def _convert(
    task: str,
    source: Path,
    output: Path,
    demos: list[str],
    n_workers: int | None,
    evaluate: bool,
    on_demo: Callable[[Conversion, int], None] | None,
) -> list[Conversion]:
    parts_folder = output.with_name(output.name + ".parts")
    stat = source.stat()
    made_from = {
        "task": task,
        "source": source.name,
        "bytes": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
        "evaluated": evaluate,
    }
    if output.exists():
        existing = _existing(output, made_from)
        remove_parts(parts_folder)  # of a call that was killed when it had finished
        return existing
    # Here and not only in the workers, whose errors are less clear.
    check_backend()
    versions = {"robosuite": import_robosuite().__version__, "mujoco": import_extra("mujoco", EXTRA).__version__}
    parts = Parts(parts_folder, made_from)

    def on_seed(index: int, kept: bool) -> None:
        if on_demo is not None:
            on_demo(_conversion(demos[index], parts.load(index)), len(demos))

    record_missing(partial(ActionConverter, task, str(source), evaluate), parts, len(demos), 0, n_workers, on_seed)
    done = [parts.load(index) for index in range(len(demos))]
    conversions = [_conversion(demo, episode) for demo, episode in zip(demos, done)]
    with atomic_path(output) as temporary:
        shutil.copyfile(source, temporary)
        _write(temporary, conversions, [episode["actions"] for episode in done], {**made_from, **versions})
    remove_parts(parts_folder)
    return conversions


def _existing(output: Path, made_from: Mapping[str, Any]) -> list[Conversion]:
    """What an earlier call returned for the same file."""
    with open_demonstrations(output, "Remove it to make it again") as file, readable(output):
        record = _record(file, "data", output)
        done = [_record(file, f"data/{demo}", output) for demo in demo_names(file)]
    if any(record.get(name) != value for name, value in made_from.items()):
        raise DatasetError(
            f"{output} is there already and was made from another file or in another way: remove it to "
            f"convert {made_from['source']}"
        )
    try:
        return [
            Conversion(
                **{name: tuple(value) if isinstance(value, list) else value for name, value in demonstration.items()}
            )
            for demonstration in done
        ]
    except TypeError as error:  # other names than those of a conversion, or none
        raise DatasetError(
            f"{output} does not say what its conversion led to ({error}): remove it to make it again"
        ) from error


def _record(file: Any, group: str, path: Path) -> dict[str, Any]:
    """The attribute `CONVERTED` of a group, empty if there is none."""
    value = json.loads(read_text(open_group(file, group, path), CONVERTED, path) or "{}")
    if not isinstance(value, dict):
        raise DatasetError(
            f"{path}: attribute {CONVERTED} of {group} is no JSON object: remove the file to make it again"
        )
    return value


def _write(path: Path, conversions: list[Conversion], actions: list[np.ndarray], record: Mapping[str, Any]) -> None:
    h5py = import_extra("h5py", EXTRA)
    with h5py.File(path, "r+") as file:
        args = recorded_environment(file, path)
        for controller in _controllers(args):
            controller["control_delta"] = False
        file["data"].attrs["env_args"] = json.dumps(args)
        file["data"].attrs[CONVERTED] = json.dumps(dict(record))
        for conversion, values in zip(conversions, actions):
            demo = file["data"][conversion.demo]
            demo["actions"][...] = values
            demo.attrs[CONVERTED] = json.dumps(asdict(conversion))


def _controllers(args: dict) -> list[dict]:
    configs = args["env_kwargs"]["controller_configs"]
    return configs if isinstance(configs, list) else [configs]


def _conversion(demo: str, episode: dict[str, np.ndarray]) -> Conversion:
    if "success" not in episode:
        return Conversion(demo)
    errors = {name: tuple(map(float, episode[name])) for name in ("relative_error", "absolute_error")}
    return Conversion(demo, **errors, success=bool(episode["success"]))
