"""URDF and OBJ text of the objects on the table: two cubes, two target zones, the board and the effector.

The arm and the ground plane come from pybullet_data. Lengths are metres, masses kg.
"""

from __future__ import annotations

import math
from pathlib import Path

BLOCK_SIZE = 0.04
ZONE_SIZE = (0.12, 0.12, 0.001)
BOARD_SIZE = (0.5, 1.0)
EFFECTOR_RADIUS, EFFECTOR_LENGTH, EFFECTOR_SIDES = 0.005, 0.03, 64
TIP_RADIUS, TIP_LENGTH, TIP_OFFSET = 0.001, 0.028, 0.029

RED, GREEN, GREY, BLUE = "1 0.34 0.35 1", "0.34 1 0.35 1", "0.2 0.2 0.2 1", "0.18 0.5 0.77 1"
# Bullet multiplies the inertia of a link by `inertia_scaling`, which makes the light cubes turn calmly.
CONTACT = (
    '<contact><lateral_friction value="1"/><rolling_friction value="0.0001"/><inertia_scaling value="3"/></contact>'
)

BLOCKS = ("block.urdf", "block2.urdf")
ZONES = ("zone.urdf", "zone2.urdf")
BOARD = "board.urdf"
EFFECTOR = "effector.urdf"


def write_assets(folder: Path) -> None:
    """Write all URDF and OBJ files to `folder`."""
    files = {"effector.obj": prism_obj(EFFECTOR_SIDES, EFFECTOR_RADIUS, EFFECTOR_LENGTH)}
    # Boxes, not meshes: Bullet pads the corners of a mesh, which shows in how the cubes turn and slide when pushed.
    cube = box(BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE)
    for name, color in zip(BLOCKS, (RED, GREEN)):
        files[name] = robot(link("block", mass=0.01, visual=cube, color=color, collision=cube))
    for name, color in zip(ZONES, (RED, GREEN)):
        files[name] = robot(link("zone", mass=0.0, visual=box(*ZONE_SIZE), color=color))
    files[BOARD] = robot(link("board", mass=0.0, visual=box(*BOARD_SIZE, 0.0002), color=GREY))
    shaft = '<mesh filename="effector.obj"/>'
    tip = f'<cylinder radius="{TIP_RADIUS}" length="{TIP_LENGTH}"/>'
    files[EFFECTOR] = robot(
        link("shaft", mass=0.1, visual=shaft, color=GREY, collision=shaft),
        '<joint name="tip_joint" type="fixed"><parent link="shaft"/><child link="tip"/>'
        f'<origin xyz="0 0 {TIP_OFFSET}"/></joint>',
        link("tip", mass=0.1, visual=tip, color=BLUE, collision=tip),
    )
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def robot(*elements: str) -> str:
    return '<?xml version="1.0"?>\n<robot name="object">\n' + "\n".join(elements) + "\n</robot>\n"


def link(name: str, mass: float, visual: str, color: str, collision: str | None = None) -> str:
    """A URDF link with its origin as centre of mass. Bullet takes the inertia from the collision shape."""
    solid = f"<collision><geometry>{collision}</geometry></collision>" if collision else ""
    return (
        f'<link name="{name}">{CONTACT}'
        f'<inertial><mass value="{mass}"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>'
        f'<visual><geometry>{visual}</geometry><material name="{name}"><color rgba="{color}"/></material></visual>'
        f"{solid}</link>"
    )


def box(x: float, y: float, z: float) -> str:
    return f'<box size="{x} {y} {z}"/>'


def prism_obj(sides: int, radius: float, height: float) -> str:
    """An upright regular prism from z = 0 to `height`, as Wavefront OBJ."""
    angles = [2 * math.pi * corner / sides for corner in range(sides)]
    lines = [
        f"v {radius * math.cos(angle):.9f} {radius * math.sin(angle):.9f} {z:.9f}"
        for z in (0.0, height)
        for angle in angles
    ]
    for a in range(1, sides + 1):  # OBJ counts vertices from 1: the bottom ring, then the top ring
        b = a % sides + 1
        lines += [f"f {a} {b} {b + sides}", f"f {a} {b + sides} {a + sides}"]
    for corner in range(2, sides):
        lines += [f"f 1 {corner + 1} {corner}", f"f {sides + 1} {sides + corner} {sides + corner + 1}"]
    return "\n".join(lines) + "\n"
