"""How the scripted expert does each task of the kitchen: the way of the gripper, relative to what it handles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from diffusion_policy.env.kitchen.inverse_kinematics import Pose

OPEN, CLOSED = 0.04, 0.0  # m, position of either finger


@dataclass(frozen=True)
class Waypoint:
    """Where the gripper goes next, in a straight line.

    Args:
        fingers: m, from the start of the way there on.
        direct: all joints move in proportion instead, which is faster and leaves the line: through free space only.
        dwell: steps to stay, for the fingers.
        speed: scale of the speed of the way there.
    """

    pose: Pose
    fingers: float
    direct: bool = False
    dwell: int = 0
    speed: float = 1.0


@dataclass(frozen=True)
class Variation:
    """What is done a little differently in each demonstration.

    Args:
        approach: [3], m, shifts the point from which a task is begun.
        contact: in [-1, 1], where along a handle it is touched.
        extent: in [-1, 1], how far it is moved.
        detour: [7], rad, shifts the arm joints in the middle of the way to that point.
    """

    approach: np.ndarray = field(default_factory=lambda: np.zeros(3))
    contact: float = 0.0
    extent: float = 0.0
    detour: np.ndarray = field(default_factory=lambda: np.zeros(7))


NOMINAL = Variation()


def kettle(scene, variation: Variation) -> list[Waypoint]:
    """Pushes its side with both open fingers, so low that it does not tip over."""
    x, y, z = scene.qpos[23:26]
    turn = {"yaw": -0.3, "pitch": 0.6}
    height = z + 0.092 + 0.006 * variation.contact
    goal = np.array([-0.235, 0.70 + 0.04 * variation.extent])
    start = Pose(np.array([x, y - 0.21, height + 0.03]) + variation.approach, **turn)
    touch = Pose(np.array([x, y - 0.14, height]), **turn)
    end = Pose(np.array([goal[0], goal[1] - 0.13, height]), **turn)
    away = Pose(end.position + [0.0, -0.10, 0.05], **turn)
    return [Waypoint(start, OPEN, direct=True), Waypoint(touch, OPEN), Waypoint(end, OPEN), Waypoint(away, OPEN)]


def microwave(scene, variation: Variation) -> list[Waypoint]:
    """Grasps the handle of its door and pulls along the arc."""
    hinge = scene.joint("microwave").xanchor
    # A little inside the handle's own arc, so that the grasp is pressed against it.
    radius = 0.985 * (scene.site("microhandle_site").xpos - hinge)
    grasp_height = 0.04 + 0.015 * variation.contact
    yaw, pitch = 0.4, 0.46
    inside = 0.017

    def at(angle: float, back: float) -> Pose:
        c, s = math.cos(angle), math.sin(angle)
        turned = np.array([c * radius[0] - s * radius[1], s * radius[0] + c * radius[1], radius[2] + grasp_height])
        pose = Pose(hinge + turned, yaw - 0.2 * angle, pitch)
        return pose.moved(pose.position + (inside - back) * pose.rotation()[:, 2])

    start = at(0.0, 0.13)
    start = start.moved(start.position + variation.approach)
    last = -0.74 - 0.04 * variation.extent
    arc = [Waypoint(at(angle, 0.0), CLOSED) for angle in np.linspace(0.0, last, 6)[1:]]
    return [
        Waypoint(start, OPEN, direct=True),
        Waypoint(at(0.0, 0.0), OPEN),
        Waypoint(at(0.0, 0.0), CLOSED, dwell=3),
        *arc,
        Waypoint(arc[-1].pose, OPEN, dwell=2),
        Waypoint(at(last, 0.12), OPEN),
    ]


def _push(from_point, to_point, turn: Mapping[str, float], variation: Variation) -> list[Waypoint]:
    """In from the front beside a lever, along x through it, and out again, with closed fingers."""
    start = Pose(from_point - [0.0, 0.10, 0.0] + variation.approach, **turn)
    end = Pose(to_point, **turn)
    return [
        Waypoint(start, CLOSED, direct=True),
        Waypoint(Pose(from_point, **turn), CLOSED),
        Waypoint(end, CLOSED),
        Waypoint(end.moved(end.position - [0.0, 0.08, 0.0]), CLOSED),
    ]


def _burner(knob: np.ndarray, variation: Variation) -> list[Waypoint]:
    """Pushes the upper half of the lever of a burner's knob to the right.

    The knob is damped: the arm leans on it for a second. The gripper is turned so that only the fingertips touch the
    lever's flat side, as their torsional friction would hold the knob elsewhere. Height and depth are in the middle of
    what works, and the way is longer than it must be: joints that are off by 0.01 rad still turn the knob.
    """
    turn = {"yaw": -0.4, "pitch": 0.03, "roll": 0.6}
    height = 0.034 + 0.002 * variation.contact
    touch = Pose(knob + [-0.042, 0.001, height], **turn)
    start = touch.moved(touch.position - [0.0, 0.12, 0.0] + variation.approach)
    press = touch.moved(knob + [0.03, 0.001, height])
    end = touch.moved(knob + [0.10 + 0.002 * variation.extent, 0.001, height + 0.004])
    away = end.moved(end.position - [0.0, 0.10, 0.0])
    return [
        Waypoint(start, CLOSED, direct=True),
        Waypoint(touch, CLOSED),
        Waypoint(press, CLOSED, speed=0.7),
        Waypoint(end, CLOSED, speed=0.22),
        Waypoint(away, CLOSED),
    ]


def bottom_burner(scene, variation: Variation) -> list[Waypoint]:
    return _burner(scene.site("knob2_site").xpos, variation)


def top_burner(scene, variation: Variation) -> list[Waypoint]:
    return _burner(scene.site("knob4_site").xpos, variation)


def light_switch(scene, variation: Variation) -> list[Waypoint]:
    """Pushes it to the left."""
    switch = scene.site("light_site").xpos
    return _push(
        switch + [0.055, 0.0, -0.006 + 0.004 * variation.contact],
        switch + [-0.085 - 0.01 * variation.extent, 0.01, -0.006],
        {"yaw": -0.1, "pitch": 0.1},
        variation,
    )


def slide_cabinet(scene, variation: Variation) -> list[Waypoint]:
    """Pushes its handle to the right."""
    handle = scene.site("slide_site").xpos
    height = -0.06 + 0.03 * variation.contact
    open_by = 0.30 + 0.03 * variation.extent
    return _push(
        handle + [-0.06, 0.015, height],
        handle + [open_by - 0.04, 0.015, height],
        {"yaw": -0.3, "pitch": 0.1},
        variation,
    )


SUBTASKS: Mapping[str, Callable[..., list[Waypoint]]] = MappingProxyType(
    {
        "kettle": kettle,
        "microwave": microwave,
        "bottom burner": bottom_burner,
        "top burner": top_burner,
        "light switch": light_switch,
        "slide cabinet": slide_cabinet,
    }
)
