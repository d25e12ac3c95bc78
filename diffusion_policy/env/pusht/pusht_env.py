"""Push-T: push a T-shaped block onto a goal pose with a position-controlled disc.

The task of Implicit Behavioral Cloning (Florence et al., 2021) in the version of Diffusion Policy (Chi et al., 2023),
on a 512 x 512 px table seen from above (x right, y down). The physics follow the human demonstrations: replaying their
actions from their first states reproduces the recorded trajectories.
"""

from __future__ import annotations

import gymnasium
import numpy as np

from diffusion_policy.env.extras import import_extra
from diffusion_policy.env.pusht.definition import (
    AGENT_RADIUS,
    BAR,
    CONTROL_HZ,
    GOAL_POSE,
    K_P,
    K_V,
    OUTLINE,
    SIM_HZ,
    STEM,
    SUCCESS_COVERAGE,
    TABLE_SIZE,
    WALL_HIGH,
    WALL_LOW,
    WALL_RADIUS,
)

pymunk = import_extra("pymunk", "pusht")
shapely = import_extra("shapely", "pusht")

# RGBA. Named colours: LightGray, RoyalBlue, LightSlateGray.
WALL_COLOR, AGENT_COLOR, BLOCK_COLOR = (211, 211, 211, 255), (65, 105, 225, 255), (119, 136, 153, 255)


class PushTEnv(gymnasium.Env):
    """Push-T with the state as observation.

    - Observation, float64 [5]: agent x, y (px), block x, y (px; the origin of its frame), block angle (rad, in
      [0, 2 pi)).
    - Action, float [2]: the x, y (px) that the agent's PD controller aims for during the next 0.1 s.
    - Reward: clip(coverage / 0.95, 0, 1), coverage being the part of the goal area that the block covers.
    - Terminates when coverage > 0.95. The environment itself never truncates.
    - info: "coverage", "is_success", "pos_agent" [2], "vel_agent" [2], "block_pose" [3] (angle unwrapped),
      "goal_pose" [3], "n_contacts" (mean contact points per substep, rounded up).

    Args:
        legacy: place the block as the original's test runs did: position first, then angle. The angle turns the block
            about its centre of gravity, which moves the origin of its frame, so both orders give different poses.
        render_size: edge of the frames that `render()` returns, px.
        render_action: mark the latest action in these frames.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}

    def __init__(self, legacy: bool = False, render_size: int = 96, render_action: bool = True):
        self.legacy = legacy
        self.render_size = render_size
        self.render_action = render_action
        self.render_mode = "rgb_array"
        high = np.array([TABLE_SIZE] * 4 + [2 * np.pi])
        self.observation_space = gymnasium.spaces.Box(np.zeros(5), high, dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(0.0, float(TABLE_SIZE), shape=(2,), dtype=np.float64)
        self.goal_pose = np.array(GOAL_POSE)
        goal = _goal_body()
        self._goal_outline = shapely.Polygon([goal.local_to_world(v) for v in OUTLINE])
        # World corners of the goal's two rectangles, in pymunk's order of corners, for drawing.
        self.goal_vertices = [
            [tuple(goal.local_to_world(v)) for v in pymunk.Poly(goal, rectangle).get_vertices()]
            for rectangle in (BAR, STEM)
        ]
        self.latest_action: np.ndarray | None = None
        self._build_space()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode from the initial state of `seed`, or from `options["state"]` (a state as `set_state` takes).

        The same seed gives the same initial state as the original environment: demonstration k starts from seed k
        with legacy=True.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        state = options.pop("state", None)
        if options:
            raise ValueError(f"unknown reset options {sorted(options)}; Push-T knows only 'state'")
        if state is None:
            state = self._initial_state(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._build_space()
        self.latest_action = None
        self.set_state(state)
        return self._observation(), self._info(self.coverage())

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move towards `action` [2] (px) for one control period, 0.1 s."""
        target = np.asarray(action, dtype=np.float64)
        if target.shape != (2,) or not np.isfinite(target).all():
            raise ValueError(f"a Push-T action is two finite numbers (x, y in px), not {action!r}")
        self.latest_action = target
        self._n_contact_points = 0
        x, y = target.tolist()
        dt = 1.0 / SIM_HZ
        for _ in range(SIM_HZ // CONTROL_HZ):
            position, velocity = self.agent.position, self.agent.velocity
            self.agent.velocity = (
                velocity.x + (K_P * (x - position.x) - K_V * velocity.x) * dt,
                velocity.y + (K_P * (y - position.y) - K_V * velocity.y) * dt,
            )
            self.space.step(dt)
        coverage = self.coverage()
        info = self._info(coverage)
        reward = float(np.clip(coverage / SUCCESS_COVERAGE, 0.0, 1.0))
        return self._observation(), reward, info["is_success"], False, info

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The action [2] that keeps the agent aiming for `last`; None: for where it is."""
        return np.array(self.agent.position) if last is None else last

    def set_state(self, state: np.ndarray) -> None:
        """Place agent and block: [5] = agent x, y, block x, y (px), block angle (rad).

        One physics step (0.01 s) follows, as when the demonstrations were recorded; it resolves overlaps.
        """
        state = np.asarray(state, dtype=np.float64)
        if state.shape != (5,) or not np.isfinite(state).all():
            raise ValueError(f"a Push-T state is five finite numbers (agent xy, block xy, block angle), not {state!r}")
        *positions, angle = state.tolist()
        self.agent.position = tuple(positions[:2])
        if self.legacy:
            self.block.position = tuple(positions[2:])
            self.block.angle = angle
        else:
            self.block.angle = angle
            self.block.position = tuple(positions[2:])
        self.space.step(1.0 / SIM_HZ)

    def coverage(self) -> float:
        """Part of the goal area covered by the block, in [0, 1]."""
        block = shapely.Polygon([self.block.local_to_world(v) for v in OUTLINE])
        return self._goal_outline.intersection(block).area / self._goal_outline.area

    def render(self, size: int | None = None) -> np.ndarray:
        """Draw the scene. Returns uint8 RGB [H, W, 3] with H = W = `size` (default: `render_size`)."""
        # pygame and OpenCV are imported on the first frame: the physics need neither.
        from diffusion_policy.env.pusht import pusht_draw

        frame = pusht_draw.draw_scene(self.space, self.goal_vertices, size or self.render_size)
        if self.render_action and self.latest_action is not None:
            pusht_draw.draw_action(frame, self.latest_action)
        return frame

    @staticmethod
    def _initial_state(seed: int) -> np.ndarray:
        rng = np.random.RandomState(seed)  # the legacy generator is part of what a seed means
        return np.array(
            [
                rng.randint(50, 450),
                rng.randint(50, 450),
                rng.randint(100, 400),
                rng.randint(100, 400),
                rng.randn() * 2 * np.pi - np.pi,
            ]
        )

    def _observation(self) -> np.ndarray:
        return np.array([*self.agent.position, *self.block.position, self.block.angle % (2 * np.pi)])

    def _info(self, coverage: float) -> dict:
        substeps = SIM_HZ // CONTROL_HZ
        return {
            "coverage": coverage,
            "is_success": bool(coverage > SUCCESS_COVERAGE),
            "pos_agent": np.array(self.agent.position),
            "vel_agent": np.array(self.agent.velocity),
            "block_pose": np.array([*self.block.position, self.block.angle]),
            "goal_pose": self.goal_pose.copy(),
            "n_contacts": -(-self._n_contact_points // substeps),
        }

    def _build_space(self) -> None:
        # A new space for every episode: pymunk keeps contacts and insertion order, which would leak between episodes.
        self.space = pymunk.Space()
        self.space.gravity = (0.0, 0.0)
        self._n_contact_points = 0
        self.space.damping = 0.0  # quasi-static: whatever is not pushed stops at once
        corners = [(WALL_LOW, WALL_HIGH), (WALL_LOW, WALL_LOW), (WALL_HIGH, WALL_LOW), (WALL_HIGH, WALL_HIGH)]
        for a, b in (
            (corners[0], corners[1]),
            (corners[1], corners[2]),
            (corners[2], corners[3]),
            (corners[0], corners[3]),
        ):
            wall = pymunk.Segment(self.space.static_body, a, b, WALL_RADIUS)
            wall.color = WALL_COLOR
            self.space.add(wall)

        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.agent.position = (256.0, 400.0)
        disc = pymunk.Circle(self.agent, AGENT_RADIUS)
        disc.color = AGENT_COLOR
        self.space.add(self.agent, disc)

        # Twice the bar's moment of inertia, not bar plus stem: the demonstrations were recorded with it.
        self.block = pymunk.Body(mass=1.0, moment=2 * pymunk.moment_for_poly(1.0, BAR))
        self._block_shapes = [pymunk.Poly(self.block, BAR), pymunk.Poly(self.block, STEM)]
        for shape in self._block_shapes:
            shape.color = BLOCK_COLOR
        self.block.center_of_gravity = (
            sum((shape.center_of_gravity for shape in self._block_shapes), pymunk.Vec2d(0, 0)) / 2
        )
        self.block.position = (256.0, 300.0)
        self.space.add(self.block, *self._block_shapes)

        if hasattr(self.space, "on_collision"):  # pymunk 7
            self.space.on_collision(0, 0, post_solve=self._count_contacts)
        else:
            self.space.add_collision_handler(0, 0).post_solve = self._count_contacts

    def _count_contacts(self, arbiter, space, data) -> None:
        self._n_contact_points += len(arbiter.contact_point_set.points)


def _goal_body() -> pymunk.Body:
    body = pymunk.Body(1.0, 1.0)
    body.position, body.angle = GOAL_POSE[:2], GOAL_POSE[2]
    return body
