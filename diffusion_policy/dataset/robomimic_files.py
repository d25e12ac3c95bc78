"""robomimic's data files (Mandlekar et al. 2021): demonstrations in HDF5, and what they say about their environment.

data                attribute env_args: JSON, as `env_metadata` makes it
data/demo_<i>       actions [T, 7 per arm], states [T, 1 + nq + nv] and obs/<name> [T, ...]
mask/<filter key>   names of some of the demonstrations. Not looked at: as in the original project, all of them count
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.hdf5_files import members, open_array, open_group, read_text
from diffusion_policy.dataset.kinds import require_hdf5
from diffusion_policy.dataset.limits import Budget
from diffusion_policy.dataset.numbers import first_not_finite, require_real
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.env.extras import import_extra
from diffusion_policy.env.robomimic.definition import RobomimicTask, env_metadata

EXTRA = "robomimic"
SIMULATOR = (1, 4)  # version of robosuite in which policies are evaluated


@contextmanager
def open_demonstrations(path: str | Path, advice: str = "") -> Iterator[Any]:
    """The HDF5 file at `path`, read-only. Read it inside `readable`.

    Raises:
        DatasetError: it is missing, cut short or without demonstrations; `advice` ends the message.
        MissingExtraError: h5py is not installed.
    """
    h5py = import_extra("h5py", EXTRA)
    path = Path(path)
    require_hdf5(path, advice)
    with readable(path, advice):
        file = h5py.File(path, "r")
        try:
            named = "data" in file and demo_names(file, path)
        except BaseException:
            file.close()
            raise
    with file:
        if not named:
            raise DatasetError(
                f"{path} holds no data/demo_0, data/demo_1, ...: it is no data file of robomimic. {advice}"
            )
        yield file


@contextmanager
def readable(path: str | Path, advice: str = "") -> Iterator[None]:
    """Says of what HDF5 cannot read that the file is damaged."""
    try:
        yield
    except DatasetError as error:
        if advice in str(error):
            raise
        raise DatasetError(f"{error}. {advice}") from error
    # KeyError: of a name that is there and leads nowhere; the others: of types and sizes that no file has.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError, SystemError) as error:
        what = "is cut short" if "truncated" in str(error) else "cannot be read"
        raise DatasetError(
            f"{path} {what} ({error or type(error).__name__}): delete it and get it again. {advice}".strip()
        ) from error


def demo_names(file: Any, path: str | Path = "the file") -> list[str]:
    """demo_0, demo_1, ..., demo_10, ...: the names of the demonstrations in an open file, in the order of their
    numbers.

    Raises:
        DatasetError: there is something else among them, so that a demonstration whose name is damaged is not lost
            silently.
    """
    names = list(open_group(file, "data", path))
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"demo_[0-9]{1,9}", name):
            raise DatasetError(
                f"{path} holds data/{str(name)[:50]}, which is no demonstration (demo_0, demo_1, ...): its name is "
                "damaged, or it belongs elsewhere in the file"
            )
    return sorted(names, key=lambda name: int(name[5:]))


def read_demonstrations(path: str | Path, shapes: Mapping[str, tuple[int, ...]], advice: str = "") -> ReplayBuffer:
    """`actions` and observations as float32 rows of all demonstrations.

    Args:
        shapes: of a row, by names as in "actions" and "obs/robot0_eef_pos".

    Raises:
        DatasetError: see `open_demonstrations`; or an array is damaged, missing, of another shape, or not finite.
    """
    episodes: dict[str, list[np.ndarray]] = {name: [] for name in shapes}
    with open_demonstrations(path, advice) as file, readable(path, advice):
        budget = Budget(Path(path).stat().st_size)
        for demo in demo_names(file):
            length = None
            for name, shape in shapes.items():
                values = demo_array(file, demo, name, shape, path, advice, budget)
                length = len(values) if length is None else length
                if len(values) != length or length == 0:
                    raise DatasetError(
                        f"{path}: {demo}/{name} has {len(values)} rows and {demo}/{next(iter(shapes))} "
                        f"{length}: it is damaged, get it again. {advice}"
                    )
                require_real(f"{path}: {demo}/{name}", values)
                values = values[...]
                with np.errstate(over="ignore"):
                    values = np.asarray(values, dtype=np.float32)
                place = first_not_finite(values)
                if place is not None:
                    raise DatasetError(
                        f"{path}: {demo}/{name} holds numbers that are not finite (as float32): {place}. Get it "
                        f"again, or remove this demonstration. {advice}"
                    )
                episodes[name].append(values)
    ends = np.cumsum([len(values) for values in next(iter(episodes.values()))])
    return ReplayBuffer({name: np.concatenate(values) for name, values in episodes.items()}, ends)


def demo_array(
    file: Any,
    demo: str,
    name: str,
    shape: tuple[int, ...] | None,
    path: str | Path,
    advice: str = "",
    budget: Budget | None = None,
) -> Any:
    """The HDF5 array `name` of a demonstration, with rows of `shape`; None: of any.

    Args:
        budget: of all arrays that are kept together, see `open_array`. None: this one is alone.
    """
    group = open_group(file, f"data/{demo}", path)
    *folders, last = name.split("/")
    try:
        parent = open_group(group, "/".join(folders), path) if folders else group
    except DatasetError as error:
        raise DatasetError(f"{path}: {demo} has no {name}, but {_listed(group)} ({error}). {advice}".strip()) from error
    if last not in parent:
        raise DatasetError(f"{path}: {demo} has no {name}, but {_listed(parent)}. {advice}".strip())
    array = open_array(parent, last, path, Budget(Path(path).stat().st_size) if budget is None else budget)
    if shape is not None and array.shape[1:] != tuple(shape):
        raise DatasetError(
            f"{path}: {demo}/{name} is {list(array.shape)} instead of {['T', *shape]}: it was recorded in "
            f"another task or at another image size. {advice}".strip()
        )
    return array


def _listed(group: Any) -> str:
    return ", ".join(sorted(members(group))[:20]) or "nothing"


# ---- the environment they were recorded in ----
def recorded_environment(file: Any, path: str | Path) -> dict[str, Any]:
    """`env_args` of an open file."""
    try:
        text = read_text(open_group(file, "data", path), "env_args", path)
        if text is None:
            raise KeyError("env_args")
        args = json.loads(text)
        if not isinstance(args["env_kwargs"], dict) or not isinstance(args["env_name"], str):
            raise TypeError("it is not of the form {env_name, env_kwargs}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} does not say in which environment it was recorded (attribute env_args of data, "
            f"{error}): robomimic's conversion scripts write it"
        ) from error
    return args


def check_environment(file: Any, path: str | Path, task: RobomimicTask) -> None:
    """Compares what an open file says about its environment with the one of `task`.

    Warns where the original project is content: another, older simulator, or details of the controller.
    Whether actions are absolute is not compared, as the published files with absolute actions say that they are not
    (see `check_actions`).

    Raises:
        DatasetError: another task, robot, controller, control frequency, or a newer simulator.
    """
    args = recorded_environment(file, path)
    kwargs, own = args["env_kwargs"], env_metadata(task, abs_action=True)["env_kwargs"]
    if args["env_name"] != task.robosuite_name:
        raise DatasetError(
            f"{path} holds demonstrations of {args['env_name']}, not of {task.robosuite_name}: "
            f"it belongs to another task than {task.name!r}"
        )
    version = str(
        args.get("env_version") or read_text(open_group(file, "data", path), "repository_version", path) or ""
    )[:50]
    numbers = tuple(int(number) for number in re.findall(r"[0-9]+", version)[:2])
    ours = ".".join(map(str, SIMULATOR))
    if numbers > SIMULATOR:
        raise DatasetError(
            f"{path} was recorded with robosuite {version}, whose observations and controllers differ from "
            f"those of {ours} here: get the file for robosuite 1.4 (robomimic names it *_v141.hdf5)"
        )
    robots = [kwargs["robots"]] if isinstance(kwargs.get("robots"), str) else kwargs.get("robots")
    controller = kwargs.get("controller_configs")
    if isinstance(controller, list) and controller:  # one for each arm
        controller = controller[0]
    _require_same(path, "robots", robots, own["robots"])
    _require_same(
        path,
        "env_configuration",
        kwargs.get("env_configuration", own.get("env_configuration")),
        own.get("env_configuration"),
    )
    _require_same(path, "control_freq", kwargs.get("control_freq"), own["control_freq"])
    if not isinstance(controller, dict):
        raise DatasetError(f"{path} does not say how its robots were controlled (controller_configs of env_args)")
    different = [
        name
        for name, value in own["controller_configs"].items()
        if name != "control_delta" and controller.get(name, value) != value
    ]
    for name in ("type", "output_max", "output_min", "impedance_mode"):
        if name in different:
            _require_same(path, name, controller[name], own["controller_configs"][name])
    if different:
        listed = ", ".join(
            f"{name} {controller[name]} instead of {own['controller_configs'][name]}" for name in different
        )
        warnings.warn(
            f"{path} was recorded with another controller than policies are evaluated with: {listed}", stacklevel=2
        )
    if numbers != SIMULATOR:
        recorded = (
            f"robosuite {version}" if version else "a robosuite that it does not name (1.2, if published in 2021)"
        )
        warnings.warn(
            f"{path} was recorded with {recorded}; policies are evaluated in {ours}, which moves nearly alike and "
            "draws floors, light and textures differently",
            stacklevel=2,
        )


def _require_same(path: str | Path, name: str, recorded: Any, expected: Any) -> None:
    if recorded != expected:
        raise DatasetError(
            f"{path} was recorded with {name} {recorded}, and policies are evaluated with {expected}: "
            "its actions mean something else"
        )
