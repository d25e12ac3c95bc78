"""Scripted experts for robomimic's Lift, Can and Square. They look at the poses in the simulation, not at images.

What an expert does next follows from how things are now: where gripper and object are, how fast the gripper moves, how
far its fingers are open and whether they hold the object. There are no phases to remember, so wherever the gripper is
pushed, the expert goes on from there, and nothing that decides its actions is hidden from a policy that sees two
observations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.spatial.transform import Rotation

from diffusion_policy.common.rotation import matrix_to_rotation_6d

OPEN, CLOSED = -1.0, 1.0  # actions of the fingers
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # the gripper at yaw 0: its fingers open along y
# The controller is a stiff, well damped spring that stops 1 to 2 cm late and short. Aiming beyond the goal, and before
# it while the gripper still moves there, makes up for both.
GAIN = 2.0
BRAKING = 0.08  # s
TURN_LEAD = 0.5  # rad, how far ahead of the gripper its rotation is commanded
TURN_WEIGHT = 0.05  # m per rad: how far off a gripper counts that is turned wrongly
OFF_LINE = 0.05  # m off the line down to the object, where the gripper stays at its hover height
AT_GRASP, NEAR_GRASP = 0.012, 0.025  # m: where the fingers start to close, and where they go on closing
CLOSING = 0.065  # m between fingers that have started to close
GRASPED = 0.056  # m, at most, between fingers that hold an object where they should: cube 0.044, can 0.050, nut 0.032
STILL = 0.02  # m/s, of fingers that press on what they hold


@dataclass(frozen=True)
class Style:
    """What is done a little differently in each demonstration.

    Args:
        lead: m, how far ahead of the gripper its position is commanded; 1 cm makes it 5 cm/s faster.
        hover: m above the grasp, from where the gripper goes straight down.
        grasp: [3], m, shifts the grasp: along the object's own x, across it, up.
        turn: rad, shifts the yaw of the grasp (Lift, Can).
        place: [2], m, shifts where the object is dropped (Can).
        clearance: m, added to the height at which the object is carried.
    """

    lead: float = 0.08
    hover: float = 0.06
    grasp: Sequence[float] = (0.0, 0.0, 0.0)
    turn: float = 0.0
    place: Sequence[float] = (0.0, 0.0)
    clearance: float = 0.0


NOMINAL = Style()


@dataclass(frozen=True)
class Scene:
    """What an expert looks at.

    Attributes:
        position, velocity, rotation: of the gripper [3] (m), [3] (m/s) and [3, 3].
        opening: m between the fingers, 0 to 0.08.
        is_held: the fingers press on the object from both sides.
        object, object_yaw: where it is [3] (m) and how it is turned (rad).
    """

    position: np.ndarray
    velocity: np.ndarray
    rotation: np.ndarray
    opening: float
    is_held: bool
    object: np.ndarray
    object_yaw: float

    @property
    def yaw(self) -> float:
        """Of the gripper, rad."""
        return math.atan2(self.rotation[1, 1], self.rotation[0, 1])


@dataclass(frozen=True)
class Goal:
    """Where the gripper, pointing down, is to be, and what its fingers do."""

    position: np.ndarray
    yaw: float
    fingers: float


class Expert(ABC):
    """Does its task in a `RobomimicEnv` with absolute actions; whether that observes images does not matter.

    Attributes:
        body: what is handled, as robosuite names it.
        slack: m that the gripper may be off the object and still go down to it.
    """

    body: str
    slack = 0.012

    def __init__(self, env, style: Style = NOMINAL):
        if not env.unwrapped.abs_action:
            raise ValueError("the experts give absolute actions: make the environment with abs_action=True")
        self._simulation = env.unwrapped.simulation
        self.style = style

    def action(self) -> np.ndarray:
        """What to do now, absolute [10]: position (m), rotation (6D), gripper."""
        scene = self.look()
        goal = self._goal(scene)
        step = _limited(GAIN * (goal.position - scene.position - BRAKING * scene.velocity), self.style.lead)
        turn = _limited(Rotation.from_matrix(_pointing_down(goal.yaw) @ scene.rotation.T).as_rotvec(), TURN_LEAD)
        rotation = Rotation.from_rotvec(turn).as_matrix() @ scene.rotation
        return np.concatenate([scene.position + step, matrix_to_rotation_6d(rotation), [goal.fingers]])

    def look(self) -> Scene:
        sim, robot = self._simulation.sim, self._simulation.robots[0]
        left, right = sim.data.qpos[robot._ref_gripper_joint_pos_indexes]
        is_still = np.abs(sim.data.qvel[robot._ref_gripper_joint_vel_indexes]).max() < STILL
        is_held = left - right < GRASPED and is_still and self._simulation._check_grasp(robot.gripper, self._geoms())
        body, site = sim.model.body_name2id(self.body), robot.eef_site_id
        turned = sim.data.body_xmat[body].reshape(3, 3)
        velocity = sim.data.get_site_xvelp(robot.gripper.important_sites["grip_site"])
        return Scene(
            sim.data.site_xpos[site].copy(),
            velocity.copy(),
            sim.data.site_xmat[site].reshape(3, 3).copy(),
            float(left - right),
            bool(is_held),
            sim.data.body_xpos[body].copy(),
            math.atan2(turned[1, 0], turned[0, 0]),
        )

    def object_pose(self) -> np.ndarray:
        """Position (m) and quaternion (xyzw) of what is handled, float32 [7]."""
        data, body = self._simulation.sim.data, self._simulation.sim.model.body_name2id(self.body)
        return np.concatenate([data.body_xpos[body], np.roll(data.body_xquat[body], -1)]).astype(np.float32)

    @abstractmethod
    def _goal(self, scene: Scene) -> Goal:
        """Where to go as things are."""

    @abstractmethod
    def _geoms(self) -> list[str]:
        """Names of the object's parts that fingers can touch."""

    def _reach(self, scene: Scene, grasp: np.ndarray, yaw: float) -> Goal:
        """To the grasp: over it, down the narrowing space above it, then the fingers close."""
        grasp = grasp + _turned(self.style.grasp, scene.object_yaw)
        wrong = TURN_WEIGHT * abs(_wrapped(yaw - scene.yaw))
        off = float(np.linalg.norm(scene.position[:2] - grasp[:2])) + wrong
        above = self.style.hover * _ramp(off, self.slack, OFF_LINE)
        closes = np.linalg.norm(scene.position - grasp) + wrong < (NEAR_GRASP if scene.opening < CLOSING else AT_GRASP)
        return Goal(grasp + [0.0, 0.0, above], yaw, CLOSED if closes else OPEN)


class LiftExpert(Expert):
    """Grasps the cube at the nearer pair of its sides and raises it."""

    body = "cube_main"
    RISE = 0.2  # m, further than needed

    def _geoms(self) -> list[str]:
        return self._simulation.cube.contact_geoms

    def _goal(self, scene: Scene) -> Goal:
        quarter = math.pi / 2
        yaw = scene.object_yaw + self.style.turn
        yaw += quarter * round((scene.yaw - yaw) / quarter)
        if scene.is_held:
            return Goal(scene.position + [0.0, 0.0, self.RISE], yaw, CLOSED)
        return self._reach(scene, scene.object, yaw)


class CanExpert(Expert):
    """Carries the can over the walls of the bins and lets it drop into its own."""

    body = "Can_main"
    GRASP = np.array([0.0, 0.0, 0.015])  # m above the can's middle: the hand stays above the bin's wall
    SHORT = np.array([-0.04, -0.035, 0.0])  # m: the middle of the bin is at the end of the arm's reach
    CARRY, DROP, RELEASE = 0.2, 0.1, 0.15  # m above the bin: carried, aimed at, let go
    OVER = 0.035  # m off the place

    def _geoms(self) -> list[str]:
        return self._simulation.objects[self._simulation.object_id].contact_geoms

    def _goal(self, scene: Scene) -> Goal:
        place = self._simulation.target_bin_placements[self._simulation.object_id] + self.SHORT
        way = place + [*self.style.place, 0.0] - scene.object
        off, height = float(np.linalg.norm(way[:2])), -way[2]
        if off < self.OVER and height < self.RELEASE:
            is_free = scene.opening > 0.07
            return Goal(scene.position + [0.0, 0.0, 0.1 * is_free], self.style.turn, OPEN)
        if not scene.is_held:
            return self._reach(scene, scene.object + self.GRASP, self.style.turn)
        carry = self.CARRY + self.style.clearance
        way[2] = self.DROP + (carry - self.DROP) * _ramp(off, 0.8 * self.OVER, 2.0 * self.OVER) - height
        if off > self.OVER:
            way[:2] *= 1.0 - _ramp(carry - height, 0.02, 0.06)  # up first, then across
        return Goal(scene.position + way, self.style.turn, CLOSED)


class SquareExpert(Expert):
    """Grasps the nut's handle, turns the nut square to the peg and slides it down.

    At the end its handle points to the robot or to a side, whichever turns the wrist less and not too far; the fourth
    way in which the nut fits is beyond the arm's reach.
    """

    body = "SquareNut_main"
    HANDLE = 0.064  # m from the nut's middle: open fingers pass its frame
    DONE = 0.04  # m above the table, of a nut that lies around the peg
    CARRY, TOUCH = 0.04, -0.02  # m above the peg's end: where the nut is carried, and aimed at when it fits
    FITS, MISSES = 0.006, 0.02  # m off the peg
    AROUND = 0.012  # m off the peg, of a nut that is lower than its end and around it
    NEAR, SLOW = 0.03, 0.03  # m off the peg, where the gripper goes down slowly
    TURN_WEIGHT = 0.03  # m per rad
    WRIST = 1.7  # rad

    def _geoms(self) -> list[str]:
        return self._simulation.nuts[self._simulation.nut_to_id["square"]].contact_geoms

    def _goal(self, scene: Scene) -> Goal:
        way = self._peg_end() - scene.object
        off, above = float(np.linalg.norm(way[:2])), -float(way[2])
        lies = scene.object[2] < self._simulation.table_offset[2] + self.DONE
        if off < self.MISSES and lies:
            return Goal(scene.position, scene.yaw, OPEN)
        if not scene.is_held:
            options = [_wrapped(scene.object_yaw + flip) for flip in (0.0, math.pi)]
            yaw = min(options, key=lambda yaw: abs(yaw) / 2 + self._turn(scene.object_yaw, yaw)[1])
            return self._reach(scene, scene.object + _turned([self.HANDLE, 0.0, 0.0], scene.object_yaw), yaw)
        turn, _ = self._turn(scene.object_yaw, scene.yaw)
        is_around = above < 0.0 and off < self.AROUND
        carry = self.CARRY + self.style.clearance
        if is_around:
            way[2] = -self.SLOW
        elif above > 0.0:
            wrong = off + self.TURN_WEIGHT * abs(turn)
            way[2] = self.TOUCH - above + (carry - self.TOUCH) * _ramp(wrong, self.FITS, self.MISSES)
        else:
            way[2] = carry - above
            way[:2] *= 1.0 - _ramp(way[2], 0.02, 0.1)  # up first, then across
        if off < self.NEAR:
            way[2] = max(way[2], -self.SLOW)
        arm = scene.position - scene.object  # it turns with the nut
        return Goal(scene.position + way + _turned(arm, turn) - arm, scene.yaw + turn, CLOSED)

    def _peg_end(self) -> np.ndarray:
        sim, peg = self._simulation.sim, self._simulation.peg1_body_id
        return sim.data.body_xpos[peg] + [0.0, 0.0, sim.model.geom_size[sim.model.body_geomadr[peg]][2]]

    def _turn(self, nut: float, gripper: float) -> tuple[float, float]:
        """How far to turn the nut so that its handle points to the robot or sideways, and what that costs, rad.

        Args:
            nut, gripper: yaw of the nut and of the gripper that holds it, rad.
        """
        turns = [_wrapped(final - nut) for final in (math.pi, math.pi / 2, -math.pi / 2)]
        costs = [
            abs(turn) + abs(gripper + turn) / 2 + 10.0 * max(0.0, abs(gripper + turn) - self.WRIST) for turn in turns
        ]
        return min(zip(turns, costs), key=lambda choice: choice[1])


EXPERTS: Mapping[str, type[Expert]] = MappingProxyType({"lift": LiftExpert, "can": CanExpert, "square": SquareExpert})


def _pointing_down(yaw: float) -> np.ndarray:
    return Rotation.from_euler("z", yaw).as_matrix() @ DOWN


def _turned(vector: Sequence[float], yaw: float) -> np.ndarray:
    """`vector` [3] turned about the vertical."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    x, y, z = vector
    return np.array([cos * x - sin * y, sin * x + cos * y, z])


def _limited(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))


def _ramp(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, straight in between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _wrapped(angle: float) -> float:
    """The same direction in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi
