"""docs/reference/observations.md: the data dictionary of every task, with the shapes of its file in config/task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from diffusion_policy.common.config import register_resolvers
from docs.generate.stored import DOCS, MARK, ROOT

PAGE = DOCS / "reference" / "observations.md"
CONFIG = ROOT / "config"
FREE = "not bounded"


@dataclass(frozen=True)
class Part:
    """Numbers of an observation or an action that mean the same.

    Attributes:
        size: how many numbers; for a named input of a policy with cameras, its shape.
    """

    name: str
    size: int | tuple[int, ...]
    unit: str
    range: str
    meaning: str
    dtype: str = "float32"

    @property
    def shape(self) -> str:
        return f"[{', '.join(map(str, (self.size,) if isinstance(self.size, int) else self.size))}]"


@dataclass(frozen=True)
class Dictionary:
    """What a policy of some tasks sees and does."""

    observation: tuple[Part, ...]
    action: tuple[Part, ...]
    note: str
    obs_steps: int
    horizon: int
    action_steps: int
    control: str
    images: bool


# ---- tasks ----
def task_config(task: str) -> DictConfig:
    """The composed task section, as `task=<task>` gives it."""
    register_resolvers()
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        return compose("eval", [f"task={task}"]).task


def task_names() -> list[str]:
    return sorted(path.stem for path in (CONFIG / "task").glob("*.yaml"))


def dictionary(task: DictConfig) -> Dictionary:
    """What the policy of a task sees and does."""
    kind = str(task.name).split("_")[0]
    if kind == "pusht":
        observation, action, note = pusht(task)
    elif kind == "block":
        observation, action, note = block_pushing(task)
    elif kind == "kitchen":
        observation, action, note = kitchen(task)
    else:
        observation, action, note = robomimic(task)
    return Dictionary(
        observation,
        action,
        note,
        task.n_obs_steps,
        task.horizon,
        task.n_action_steps,
        f"{float(task.fps):g} actions per second",
        images="shape_meta" in task,
    )


Description = tuple[tuple[Part, ...], tuple[Part, ...], str]  # observation, action, note


def pusht(task: DictConfig) -> Description:
    action = (Part("target", 2, "px", "0 to 512", "x, y that the agent's controller aims for"),)
    note = "A table of 512 x 512 px seen from above, x to the right, y down."
    if "shape_meta" in task:
        shapes = task.shape_meta.obs
        return (
            (
                Part(
                    "image",
                    tuple(shapes.image.shape),
                    "-",
                    "0 to 255, or 0 to 1",
                    "RGB, the table from above",
                    "uint8 or float",
                ),
                Part("agent_pos", tuple(shapes.agent_pos.shape), "px", "0 to 512", "x, y of the agent"),
            ),
            action,
            note,
        )
    keypoints = Part("keypoints", 18, "px", "0 to 512", "x, y of nine points on the block")
    return (keypoints, Part("agent", 2, "px", "0 to 512", "x, y of the agent")), action, note


def block_pushing(task: DictConfig) -> Description:
    yaw = "m, m, rad"
    observation = (
        Part("block", 3, yaw, "yaw 0 to pi", "x, y, yaw of the first block"),
        Part("block2", 3, yaw, "yaw 0 to pi", "x, y, yaw of the second block"),
        Part("effector", 2, "m", "0.15 to 0.7, -0.5 to 0.5", "x, y of the effector"),
        Part("effector_target", 2, "m", "0.15 to 0.7, -0.5 to 0.5", "x, y where the effector is heading"),
        Part("target", 3, yaw, "yaw 0 to pi", "x, y, yaw of the first target"),
        Part("target2", 3, yaw, "yaw 0 to pi", "x, y, yaw of the second target"),
    )
    if task.abs_action:
        action = Part("effector_target", 2, "m", "0.15 to 0.7, -0.5 to 0.5", "x, y where the effector is to go")
    else:
        action = Part("effector_change", 2, "m", "-0.1 to 0.1", "what to add to the effector's target")
    return observation, (action,), "Seen from above; the effector's target is clipped to the workspace."


def kitchen(task: DictConfig) -> Description:
    observation = (
        Part("robot", 9, "rad; fingers m", "-8 to 8", "joint positions: seven of the arm, two fingers"),
        Part("objects", 21, "rad or m", "-8 to 8", "joint positions of burners, switches, doors and kettle"),
        Part("goal", 30, "-", "0", "always zero: this task has no goal"),
    )
    if task.abs_action:
        action = Part("joint_positions", 9, "rad; fingers m", "-8 to 8", "positions to reach in 0.08 s")
    else:
        action = Part("joint_velocities", 9, "2 rad/s", "-1 to 1", "velocities for 0.08 s")
    return observation, (action,), "Positions are observed with noise, which the episode's seed draws."


PROPRIOCEPTION = (
    ("eef_pos", 3, "m", FREE, "position of the gripper in the world"),
    ("eef_quat", 4, "-", "-1 to 1", "orientation of the gripper, quaternion x, y, z, w"),
    ("gripper_qpos", 2, "m", "-0.04 to 0.04", "positions of the two fingers"),
)


def robomimic(task: DictConfig) -> Description:
    arms = [f"robot{arm}" for arm in range(task.n_arms)]
    body = {f"{arm}_{name}": (name, *rest) for arm in arms for name, *rest in PROPRIOCEPTION}
    if "shape_meta" in task:
        observation = tuple(
            Part(name, tuple(field.shape), *body[name][2:])
            if name in body
            else Part(
                name, tuple(field.shape), "-", "0 to 255, or 0 to 1", f"RGB of the camera {name[:-6]}", "uint8 or float"
            )
            for name, field in task.shape_meta.obs.items()
        )
    else:
        proprioception = [Part(name, *values[1:]) for name, values in body.items()]
        size = task.obs_dim - sum(part.size for part in proprioception)
        meaning = "poses of the objects (m; quaternions x, y, z, w) and their offsets from the gripper"
        observation = (Part("object", size, "m; -", FREE, meaning), *proprioception)
    return observation, tuple(part for arm in arms for part in arm_action(arm, task.abs_action)), ""


def arm_action(arm: str, absolute: bool) -> tuple[Part, ...]:
    gripper = Part(f"{arm} gripper", 1, "-", "-1 to 1", "-1 opens, 1 closes")
    if absolute:
        return (
            Part(f"{arm} position", 3, "m", FREE, "where the gripper is to be"),
            Part(f"{arm} rotation", 6, "-", "-1 to 1", "the first two rows of its rotation matrix"),
            gripper,
        )
    return (
        Part(f"{arm} position change", 3, "5 cm", "-1 to 1", "how far the gripper is to move"),
        Part(f"{arm} rotation change", 3, "0.5 rad", "-1 to 1", "how far it is to turn: an axis times its angle"),
        gripper,
    )


# ---- page ----
def rows(parts: tuple[Part, ...], indexed: bool) -> list[str]:
    lines, start = [], 0
    for part in parts:
        where = []
        if indexed:
            where = [f"{start}" if part.size == 1 else f"{start} to {start + part.size - 1}"]
            start += part.size
        shape = [] if indexed else [part.shape]
        cells = [f"`{part.name}`", *where, *shape, part.dtype, part.unit, part.range, part.meaning]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parts_table(parts: tuple[Part, ...], indexed: bool) -> str:
    columns = ["name", "numbers" if indexed else "shape of a step", "dtype", "unit", "range", "meaning"]
    return "\n".join([f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}", *rows(parts, indexed)])


INTRODUCTION = """
# Observations and actions

What the policy of each task sees and does, as `policy.predict_action` takes and returns it: in the environment's units.
The policy normalises by itself. B is the batch; the second axis is that of the observation steps, the oldest first; at
the start of an episode the first observation is repeated. Images are channels first, uint8 or floating in [0, 1].
Values that are not finite, images outside of that range and other shapes are refused with the reason."""


def section(tasks: list[str], described: Dictionary) -> str:
    if described.images:
        observation = f"Observation: one array for each name, [B, {described.obs_steps}, *shape*]."
    else:
        total = sum(part.size for part in described.observation)
        observation = f"Observation: `obs`, float32 [B, {described.obs_steps}, {total}]. Its numbers, in this order:"
    size = sum(part.size for part in described.action)
    action = (
        f"Action: `action`, float32 [B, {described.action_steps}, {size}], the executed part of a trajectory of "
        f"{described.horizon} steps; {described.control}."
    )
    pieces = [f"## {', '.join(f'`{task}`' for task in tasks)}", described.note, observation]
    pieces += [parts_table(described.observation, indexed=not described.images)]
    pieces += [action, parts_table(described.action, indexed=True)]
    return "\n\n".join(piece for piece in pieces if piece)


def page() -> str:
    groups: dict[Dictionary, list[str]] = {}
    for name in task_names():
        groups.setdefault(dictionary(task_config(name)), []).append(name)
    sections = [section(tasks, described) for described, tasks in groups.items()]
    return "\n\n".join([MARK + INTRODUCTION, *sections]) + "\n"


def pages() -> dict[Path, str]:
    return {PAGE: page()}
