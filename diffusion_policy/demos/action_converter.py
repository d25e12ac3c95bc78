"""Relative actions of recorded demonstrations as absolute ones: the poses that they told the controllers to reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.common.rotation import matrix_to_axis_angle
from diffusion_policy.dataset.numbers import require_finite
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.robomimic_actions import are_absolute
from diffusion_policy.dataset.robomimic_files import demo_array, demo_names, open_demonstrations, readable
from diffusion_policy.env.robomimic.definition import ROBOT_ARM_DIM, task_named
from diffusion_policy.env.robomimic.simulation import global_random_state, make_simulation

BUILD_SEED = 0
SKIPPED = 1  # first steps that the largest error leaves out, as in the original


class ActionConverter:
    """Converts the demonstrations of a data file of robomimic in the simulator. A `Demonstrator`: one file, many
    workers.

    A relative action counts from where the gripper is, so that each is converted in the state in which it was given.
    One that does not rotate keeps the orientation that was last aimed at.

    Args:
        task: "lift", "can", "square", "transport" or "tool_hang".
        path: the data file, with relative actions; it needs `states` and `actions`.
        evaluate: measure what the absolute actions do.
    """

    def __init__(self, task: str, path: str | Path, evaluate: bool = True):
        self.task, self.path, self.evaluate = task_named(task), Path(path), evaluate
        with global_random_state(np.random.RandomState(BUILD_SEED)):
            self._simulation = make_simulation(self.task, abs_action=False, objects=False)
        self._simulation.hard_reset = False

    def record(self, seed: int) -> dict[str, np.ndarray]:
        """Demonstration number `seed` of the file, counted from 0.

        Returns:
            "actions" [T, 7 n_arms]: absolute, in the file's type of numbers. With `evaluate` also
            "relative_error", "absolute_error" [2]: how far (m, rad) any gripper is from where the recording has it
                next,
            at most, when each recorded state is followed by one step of the recorded or the absolute action. What
            remains of the first is due to another simulator than the one recorded in;
            "success" []: the absolute actions do the task when they follow on another from the first recorded state.

        Raises:
            DatasetError: the file is damaged, of another task, or holds absolute actions.
        """
        states, actions = self._load(seed)
        converted = self._convert(states, actions, seed)
        if not self.evaluate:
            return {"actions": converted}
        return {
            "actions": converted,
            "relative_error": self._step_error(states, actions, relative=True),
            "absolute_error": self._step_error(states, converted, relative=False),
            "success": np.asarray(self._succeeds(states[0], converted)),
        }

    def close(self) -> None:
        self._simulation.close()

    def _load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sim = self._simulation.sim
        width = 1 + sim.model.nq + sim.model.nv
        with open_demonstrations(self.path) as file, readable(self.path):
            name = demo_names(file)[index]
            states, actions = (
                demo_array(file, name, part, None, self.path, "The conversion needs it")[...]
                for part in ("states", "actions")
            )
        if states.shape != (len(actions), width) or actions.shape[1:] != (ROBOT_ARM_DIM * self.task.n_arms,):
            raise DatasetError(
                f"{self.path}: {name} has states {list(states.shape)} and actions {list(actions.shape)} "
                f"instead of [T, {width}] and [T, {ROBOT_ARM_DIM * self.task.n_arms}]: it was recorded in "
                "another task or version of robosuite"
            )
        for part, values in (("states", states), ("actions", actions)):
            require_finite(self.path, f"{name}/{part}", values)
        return states.astype(np.float64), actions

    @property
    def _controllers(self) -> list:
        return [robot.controller for robot in self._simulation.robots]

    def _convert(self, states: np.ndarray, actions: np.ndarray, index: int) -> np.ndarray:
        self._start(states[0], relative=True)
        converted, positions = np.array(actions), np.empty((len(actions), 3 * self.task.n_arms))
        for row, (state, action) in enumerate(zip(states, actions)):
            self._restore(state)
            positions[row] = np.concatenate([controller.ee_pos for controller in self._controllers])
            for arm, controller in enumerate(self._controllers):
                start = ROBOT_ARM_DIM * arm
                controller.set_goal(np.asarray(action[start : start + 6], dtype=np.float64))
                converted[row, start : start + 3] = controller.goal_pos
                converted[row, start + 3 : start + 6] = matrix_to_axis_angle(controller.goal_ori)
        if are_absolute(actions, positions):
            raise DatasetError(f"{self.path}: the actions of demonstration {index} are absolute already")
        return converted

    def _step_error(self, states: np.ndarray, actions: np.ndarray, relative: bool) -> np.ndarray:
        self._start(states[0], relative)
        largest = np.zeros(2)
        for row in range(len(states) - 1):
            self._restore(states[row])
            self._simulation.step(np.asarray(actions[row], dtype=np.float64))
            reached = self._poses()
            self._restore(states[row + 1])
            if row >= SKIPPED:
                for (position, orientation), (next_position, next_orientation) in zip(reached, self._poses()):
                    angle = np.linalg.norm(matrix_to_axis_angle(orientation @ next_orientation.T))
                    largest = np.maximum(largest, [np.linalg.norm(position - next_position), angle])
        return largest

    def _succeeds(self, state: np.ndarray, actions: np.ndarray) -> bool:
        self._start(state, relative=False)
        for action in actions:
            self._simulation.step(np.asarray(action, dtype=np.float64))
            if self._simulation._check_success():
                return True
        return False

    def _start(self, state: np.ndarray, relative: bool) -> None:
        """As the episode was when it was recorded: grippers and what the controllers remember start anew at `state`."""
        self._simulation.reset()
        self._restore(state)
        for controller in self._controllers:
            controller.use_delta = relative
            controller.update_initial_joints(controller.joint_pos)

    def _restore(self, state: np.ndarray) -> None:
        self._simulation.sim.set_state_from_flattened(state)
        for controller in self._controllers:
            controller.update(force=True)  # it also calls sim.forward()

    def _poses(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where the grippers are: positions [3] and rotation matrices [3, 3] by arm."""
        for controller in self._controllers:
            controller.update(force=True)
        return [(controller.ee_pos, controller.ee_ori_mat) for controller in self._controllers]
