"""A scripted expert for Block Pushing. It picks one of the four orders at random, which makes demonstrations
multimodal.

It walks behind a block, turns the block square to the target by circling it in touch, pushes, and turns it again when
it gets out of line; then it goes back the way it came and does the second block. Distances and speeds are those of the
expert that made the benchmark's demonstrations (Florence et al., 2021; Shafiullah et al., 2022).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np

from diffusion_policy.env.block_pushing.definition import BLOCKS, EFFECTOR_TARGET, TARGETS, TOLERANCE

CONTROL_PERIOD = 0.1  # s
SWITCH_DISTANCE = 0.04  # m, the first block is done
ARRIVED = 0.001  # m, from a waypoint,
NEARLY_ARRIVED = 0.006  # and for an expert that recovers from perturbations
BEHIND = 0.05  # m from the block's centre, on the far side of the target: where an attempt starts,
TOUCH = 0.03  # where it is close to contact,
INSIDE = 0.01  # and the point that pushing aims for
TURN_RADIUS = 0.025  # m, circling while turning a block
TURN_ANGLE = 0.2  # rad ahead on that circle
MISALIGNED, ALIGNED = 0.2, 0.03  # rad
CLEAR = 0.04  # m from a block's centre, too far away to touch it

# (block, target) pairs in their order
ORDERS = (((0, 0), (1, 1)), ((0, 1), (1, 0)), ((1, 0), (0, 1)), ((1, 1), (0, 0)))


class Phase(enum.Enum):
    """What the expert does, with its top speed in m/s."""

    APPROACH = "approach", 0.30
    CONTACT = "contact", 0.35
    PUSH = "push", 0.35
    TURN_LEFT = "turn left", 0.15
    TURN_RIGHT = "turn right", 0.15
    BACK_OFF = "back off", 0.30
    RETURN = "return", 0.30

    @property
    def speed(self) -> float:
        return self.value[1]


@dataclass(frozen=True)
class Geometry:
    """The block to push, seen along its way to the target."""

    effector: np.ndarray  # [2], where the controller aims
    block: np.ndarray  # [2]
    direction: np.ndarray  # [2], unit vector from block to target
    misalignment: float  # rad, from the block's nearest face normal to `direction`

    def behind(self, distance: float) -> np.ndarray:
        return self.block - distance * self.direction


@dataclass(frozen=True)
class Intention:
    """Where the expert is heading, and with it what it would do from a place nearby.

    It steps towards `waypoint` [2], by `longest` (m) at most. While it circles a block, the waypoint keeps its lead:
    from elsewhere it lies as far from the `centre` [2] and as far ahead; otherwise `centre` is None.
    """

    waypoint: np.ndarray
    longest: float
    centre: np.ndarray | None

    def step(self, effector: np.ndarray) -> np.ndarray:
        """The way to go from `effector` [2], m."""
        step = self.waypoint - effector
        length = np.linalg.norm(step)
        return step / length * self.longest if length > self.longest else step

    def to_array(self) -> np.ndarray:
        """float32 [5]: waypoint, longest step, centre (nan: none)."""
        return np.float32([*self.waypoint, self.longest, *((np.nan, np.nan) if self.centre is None else self.centre)])


class MultimodalPushOracle:
    """One episode of the expert. `intention` is where the last action was heading.

    It waits to be within 1 mm of where an attempt starts, which who imitates it with an error of some millimetres never
    is: when its actions are disturbed by 5 mm (normal, x and y) it solves 0 of 12 episodes.

    Args:
        rng: draws the order; the environment's own generator after its reset, so that a seed gives one demonstration.
    """

    arrived = ARRIVED

    def __init__(self, rng: np.random.RandomState):
        self.order_index = int(rng.choice(len(ORDERS)))
        self.order = ORDERS[self.order_index]
        self.phase = Phase.APPROACH
        self.intention: Intention | None = None
        self._stage = 0
        self._origin: np.ndarray | None = None  # where the episode started
        self._first_start: np.ndarray | None = None  # where the first push started

    def action(self, observation: np.ndarray) -> np.ndarray:
        """Observation [16] -> change of the effector's target, float32 [2], m."""
        blocks = [observation[0:3], observation[3:6]]
        targets = [observation[10:13], observation[13:16]]
        if self._stage == 0:
            block, target = self.order[0]
            if np.linalg.norm(blocks[block][:2] - targets[target][:2]) < SWITCH_DISTANCE:
                self._stage, self.phase = 1, Phase.BACK_OFF
        block, target = self.order[self._stage]
        geometry = _geometry(observation[EFFECTOR_TARGET], blocks[block], targets[target])
        if self._origin is None:
            self._origin = geometry.effector.copy()
        # A phase that is over hands over at once, except that a new attempt starts with the next step. Every chain of
        # phases therefore ends: they all lead to a new attempt.
        while (following := self._following(geometry)) not in (self.phase, Phase.APPROACH):
            self.phase = following
        waypoint, circling = self._waypoint(geometry)
        self.intention = Intention(waypoint, self.phase.speed * CONTROL_PERIOD, geometry.block if circling else None)
        self.phase = following
        return np.asarray(self.intention.step(geometry.effector), dtype=np.float32)

    def _following(self, now: Geometry) -> Phase:
        """The phase that comes now; the current one if it is not over."""
        phase, arrived = self.phase, np.linalg.norm(self._waypoint(now)[0] - now.effector) < self.arrived
        if phase is Phase.APPROACH and arrived:
            if self._first_start is None:
                self._first_start = now.behind(BEHIND)
            return Phase.CONTACT
        if phase is Phase.CONTACT:
            if abs(now.misalignment) > MISALIGNED:
                return Phase.TURN_LEFT if now.misalignment > 0 else Phase.TURN_RIGHT
            return Phase.PUSH if arrived else phase
        if phase is Phase.PUSH and abs(now.misalignment) > MISALIGNED:
            return Phase.APPROACH
        if phase is Phase.TURN_LEFT and now.misalignment < ALIGNED:
            return Phase.APPROACH
        if phase is Phase.TURN_RIGHT and now.misalignment > -ALIGNED:
            return Phase.APPROACH
        if phase is Phase.BACK_OFF and arrived:
            return Phase.RETURN
        if phase is Phase.RETURN and arrived:
            return Phase.APPROACH
        return phase

    def _waypoint(self, now: Geometry) -> tuple[np.ndarray, bool]:
        """Where the effector goes in the current phase [2], and whether it circles the block on the way."""
        if self.phase is Phase.APPROACH:
            return now.behind(BEHIND), False
        if self.phase is Phase.CONTACT:
            return now.behind(TOUCH), False
        if self.phase is Phase.PUSH:
            return now.behind(INSIDE), False
        if self.phase is Phase.BACK_OFF and self._first_start is not None:
            return self._first_start, False
        if self.phase in (Phase.BACK_OFF, Phase.RETURN):
            return self._origin, False
        angle = TURN_ANGLE if self.phase is Phase.TURN_LEFT else -TURN_ANGLE
        return now.block + TURN_RADIUS * _rotated(_unit(now.effector - now.block), angle), True


class RecoveringOracle(MultimodalPushOracle):
    """The expert under perturbations: it recovers by a new attempt with what is nearest, and on the way goes around the
    block.

    Where it was heading before does not matter then. Otherwise two demonstrations would do different things in the same
    place, and a policy that learned from both would waver between the blocks. It is content to be within 6 mm of a
    waypoint, and so bears imprecise actions: disturbed by 5 mm it solves 10 of 10 episodes.
    """

    arrived = NEARLY_ARRIVED

    def recover(self, observation: np.ndarray) -> None:
        """Starts anew, as the effector is not where the expert wanted it; the observation [16] is the one to act on
        next."""
        blocks, targets = observation[BLOCKS].reshape(2, 3), observation[TARGETS].reshape(2, 3)
        done = [
            order for order in ORDERS if np.linalg.norm(blocks[order[0][0]][:2] - targets[order[0][1]][:2]) < TOLERANCE
        ]
        self._stage = 1 if done else 0

        def way(order: tuple) -> float:
            block, target = order[self._stage]
            geometry = _geometry(observation[EFFECTOR_TARGET], blocks[block], targets[target])
            return float(np.linalg.norm(geometry.behind(BEHIND) - geometry.effector))

        self.order = min(done or ORDERS, key=way)
        self.phase, self._first_start = Phase.APPROACH, None

    def _waypoint(self, now: Geometry) -> tuple[np.ndarray, bool]:
        waypoint, circling = super()._waypoint(now)
        if self.phase is not Phase.APPROACH:
            return waypoint, circling
        start, end = now.effector - now.block, waypoint - now.block
        angle = math.atan2(start[0] * end[1] - start[1] * end[0], start @ end)
        way = end - start
        nearest = (
            start - np.clip(start @ way / max(way @ way, 1e-12), -1.0, 0.0) * way
        )  # of the straight way to the block
        if abs(angle) < math.pi / 3 or np.linalg.norm(nearest) > CLEAR:
            return waypoint, False
        tangent = math.acos(min(1.0, BEHIND / np.linalg.norm(start)))
        return now.block + BEHIND * _rotated(
            _unit(start), math.copysign(min(abs(angle), max(0.6, tangent)), angle)
        ), True


def _geometry(effector: np.ndarray, block: np.ndarray, target: np.ndarray) -> Geometry:
    direction = _unit(target[:2] - block[:2])
    heading = math.atan2(direction[1], direction[0])
    quarter = math.pi / 2  # a cube looks the same after a quarter turn
    misalignment = (heading - float(block[2]) + quarter / 2) % quarter - quarter / 2
    return Geometry(effector, block[:2], direction, misalignment)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _rotated(vector: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ vector
