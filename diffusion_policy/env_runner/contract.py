"""What an environment has to offer, checked where it is met: with environments of one's own, it is what goes wrong
first."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

OFFER = """An environment has to offer, as gymnasium's do:
  action_space: a Box of the actions' shape [Da]
  reset(seed=<int>) -> (obs, info)
  step(action) -> (obs, reward, terminated, truncated, info), where info["is_success"] says whether the task is done
  close(); for videos also render() -> uint8 [H, W, 3] and metadata["render_fps"]
  for eval.clock=real also hold_action(last) -> the action [Da] with which the robot stands still"""


class EnvironmentContractError(TypeError):
    """An environment does not offer what the evaluation needs."""

    def __init__(self, env: Any, found: str):
        super().__init__(f"{type(getattr(env, 'unwrapped', env)).__name__}: {found}.\n{OFFER}")


def check_environment(env: Any, action_dim: int | None = None) -> None:
    """Raises EnvironmentContractError for what can be seen before the first reset.

    Args:
        action_dim: Da of the task; None: whatever the environment has.
    """
    missing = [name for name in ("reset", "step", "close") if not callable(getattr(env, name, None))]
    if missing:
        raise EnvironmentContractError(env, f"it has no {', '.join(missing)}()")
    shape = getattr(getattr(env, "action_space", None), "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 1:
        raise EnvironmentContractError(
            env, f"its action_space is {getattr(env, 'action_space', None)!r}, not a vector of numbers"
        )
    if action_dim is not None and shape != (action_dim,):
        raise EnvironmentContractError(
            env, f"it takes actions of shape {list(shape)}, the task has action_dim={action_dim}"
        )
    accepted = inspect.signature(env.reset).parameters.values()
    if not any(p.name == "seed" or p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted):
        is_old = callable(getattr(getattr(env, "unwrapped", env), "seed", None))
        old = " and env.seed(), as old gym does," if is_old else ""
        raise EnvironmentContractError(env, f"its reset({', '.join(p.name for p in accepted)}){old} takes no seed=")


def reset(env: Any, seed: int) -> Any:
    """The first observation."""
    answer = env.reset(seed=seed)
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        raise EnvironmentContractError(env, f"reset() returned {_described(answer)} instead of (obs, info)")
    return answer[0]


def step(env: Any, action: np.ndarray) -> tuple[Any, float, bool, bool, Mapping]:
    """`env.step`, with plain numbers and truth values."""
    answer = env.step(action)
    if not isinstance(answer, tuple) or len(answer) != 5:
        is_old = isinstance(answer, tuple) and len(answer) == 4
        old = ": old gym's (obs, reward, done, info); done is terminated or truncated now" if is_old else ""
        raise EnvironmentContractError(env, f"step() returned {_described(answer)} instead of five values{old}")
    obs, reward, terminated, truncated, info = answer
    if not isinstance(info, Mapping):
        raise EnvironmentContractError(env, f"the info of step() is {_described(info)}, not a dict")
    if "is_success" not in info:
        held = ", ".join(map(str, list(info)[:10])) or "nothing"
        raise EnvironmentContractError(env, f"the info of step() lacks 'is_success'; it holds {held}")
    # Where the observation is not finite either, the rollout names the episode; what the environment broke first is
    # there.
    return (
        obs,
        number(env, reward, "the reward", finite=_is_finite(obs)),
        _truth(env, terminated, "terminated"),
        _truth(env, truncated, "truncated"),
        {**info, "is_success": _truth(env, info["is_success"], "info['is_success']")},
    )


def number(env: Any, value: Any, name: str, finite: bool = True) -> float:
    """A float; `finite` whether it has to be."""
    array = _array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiub":
        raise EnvironmentContractError(env, f"{name} is {_described(value)}, not a number")
    if finite and not np.isfinite(array).all():
        raise EnvironmentContractError(
            env, f"{name} is {array.reshape(()).item()}: its simulation diverged, or it divided by zero"
        )
    return float(array.reshape(()))


def check_observation(env: Any, obs: Any, shapes: Mapping[str, tuple[int, ...]] | tuple[int, ...] | None) -> None:
    """Raises EnvironmentContractError unless `obs`, as the policy sees it, is of numbers and has the shapes that the
    task names."""
    named = obs if isinstance(obs, dict) else {"obs": obs}
    for name, value in named.items():
        array = _array(value)
        if array is None or array.dtype.kind not in "fiub":
            raise EnvironmentContractError(
                env, f"the observation {name!r} is {_described(value)}, not an array of numbers"
            )
    if shapes is None:
        return
    wanted = shapes if isinstance(shapes, Mapping) else {"obs": shapes}
    if isinstance(obs, dict) != isinstance(shapes, Mapping):
        raise EnvironmentContractError(env, f"an observation is {_described(obs)}, the task names {_listed(wanted)}")
    if missing := [name for name in wanted if name not in named]:
        raise EnvironmentContractError(
            env, f"an observation lacks {', '.join(missing)}; it holds {', '.join(map(str, named))}"
        )
    for name, shape in wanted.items():
        if np.shape(named[name]) != tuple(shape):
            raise EnvironmentContractError(
                env, f"the observation {name!r} has shape {list(np.shape(named[name]))}, the task names {list(shape)}"
            )


def check_hold(env: Any) -> None:
    """Raises EnvironmentContractError unless the robot of `env` can be held."""
    inner = getattr(env, "unwrapped", env)
    if not callable(getattr(inner, "hold_action", None)):
        raise EnvironmentContractError(
            env,
            "it has no hold_action(last), the action [Da] that keeps the robot where it is after the action `last` "
            "(None: before the first), which eval.clock=real needs; without it use eval.clock=stopped",
        )


def hold_action(env: Any, last: np.ndarray | None) -> np.ndarray:
    """The action [Da] with which the robot stands still, after the action `last`; None: before the first one.

    With targets as actions it is the last target, before that the robot's pose; with changes or velocities it is none.
    """
    action = np.asarray(getattr(env, "unwrapped", env).hold_action(last))
    if action.shape != env.action_space.shape or action.dtype.kind not in "fiu" or not np.isfinite(action).all():
        raise EnvironmentContractError(
            env, f"hold_action() returned {_described(action)}, not a finite action {list(env.action_space.shape)}"
        )
    return action


def frame(env: gymnasium.Env) -> np.ndarray:
    """A picture for a video."""
    picture = env.render()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise EnvironmentContractError(
            env,
            f"render() returned {_described(picture)} instead of uint8 [H, W, 3], which videos need "
            "(render_mode='rgb_array'); without them use eval.n_videos=0",
        )
    return picture


def frames_per_second(env: gymnasium.Env) -> float:
    fps = (getattr(env, "metadata", None) or {}).get("render_fps")
    if not isinstance(fps, (int, float)) or isinstance(fps, bool) or not fps > 0:
        raise EnvironmentContractError(
            env, f"metadata['render_fps'] is {fps!r}, which videos need; without them use eval.n_videos=0"
        )
    return float(fps)


def _is_finite(obs: Any) -> bool:
    arrays = [_array(value) for value in (obs.values() if isinstance(obs, Mapping) else [obs])]
    return all(bool(np.isfinite(array).all()) for array in arrays if array is not None and array.dtype.kind in "fiub")


def _truth(env: Any, value: Any, name: str) -> bool:
    array = _array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise EnvironmentContractError(env, f"{name} is {_described(value)}, not true or false")
    return bool(array.reshape(()))


def _array(value: Any) -> np.ndarray | None:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # ragged lists, tensors on a GPU
        return None


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values ({', '.join(type(part).__name__ for part in value[:6])})"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, list(value)[:10])) or 'nothing'}"
    if isinstance(value, np.ndarray) and value.size != 1:
        return f"an array {value.dtype} {list(value.shape)}"
    return f"{type(value).__name__} {str(value)[:60]}" if value is not None else "None"
