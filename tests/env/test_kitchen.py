"""Franka Kitchen: the model, what an action does, what is observed and what is rewarded."""

import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.kitchen.definition import (
    CONTROL_HIGH,
    CONTROL_LOW,
    GOALS,
    INITIAL_QPOS,
    NOISE_AMPLITUDE,
    NOISE_RATIO,
    TASKS,
    CompletedTasks,
    fraction_completed,
    is_complete,
)


def with_goals(*tasks):
    qpos = INITIAL_QPOS.copy()
    for task in tasks:
        indices, goal = GOALS[task]
        qpos[indices] = goal
    return qpos


def test_nothing_is_complete_at_the_start_and_each_goal_completes_its_task_alone():
    assert not any(is_complete(task, INITIAL_QPOS) for task in TASKS)
    for task in TASKS:
        assert [other for other in TASKS if is_complete(other, with_goals(task))] == [task]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_complete_within_03_of_its_goal(task):
    qpos, first = with_goals(task), GOALS[task][0][0]
    qpos[first] += 0.299
    assert is_complete(task, qpos)
    qpos[first] += 0.002
    assert not is_complete(task, qpos)


def test_every_task_is_rewarded_once():
    completed = CompletedTasks()
    assert completed.step(INITIAL_QPOS) == 0.0
    assert completed.step(with_goals("kettle")) == 1.0
    assert completed.step(with_goals("kettle")) == 0.0
    assert completed.step(INITIAL_QPOS) == 0.0  # undone: neither punished ...
    assert completed.step(with_goals("kettle")) == 0.0  # ... nor rewarded again
    assert completed.step(with_goals("microwave", "light switch")) == 2.0
    assert completed.order == ["kettle", "light switch", "microwave"]
    metrics = completed.metrics()
    assert [metrics[f"p{n}"] for n in range(1, 8)] == [1, 1, 1, 0, 0, 0, 0]
    assert {task for task in TASKS if metrics[task]} == {"kettle", "light switch", "microwave"}
    assert fraction_completed(np.array([0, 1, 0, 2])) == pytest.approx(3 / 7)


def test_a_missing_mujoco_names_its_extra(monkeypatch):
    from diffusion_policy.env.offscreen import import_mujoco

    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'bac-workbench\[kitchen\]'"):
        import_mujoco("kitchen")


def test_missing_model_files_name_their_extra(monkeypatch):
    from diffusion_policy.env.kitchen import model

    monkeypatch.setattr(model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"gymnasium-robotics.*pip install 'bac-workbench\[kitchen\]'"):
        model.model_path()


mujoco = pytest.importorskip("mujoco")
pytest.importorskip("gymnasium_robotics")

from diffusion_policy.env import offscreen  # noqa: E402
from diffusion_policy.env.kitchen.kitchen_env import KitchenEnv  # noqa: E402
from diffusion_policy.env.kitchen.model import load_model, model_path, pedestal_geom  # noqa: E402


@pytest.fixture
def env():
    env = KitchenEnv()
    yield env
    env.close()


# --- the model ---


def test_the_model_is_the_packages_but_for_the_pedestal():
    ours, theirs = load_model(), mujoco.MjModel.from_xml_path(str(model_path()))
    pedestal = pedestal_geom(ours)
    assert ours.geom_contype[pedestal] == ours.geom_conaffinity[pedestal] == 0 and theirs.geom_contype[pedestal] == 1
    changed = [
        name
        for name in dir(theirs)
        if isinstance(value := getattr(theirs, name), np.ndarray)
        and value.dtype.kind in "fiub"
        and not np.array_equal(value, getattr(ours, name))
    ]
    assert changed == ["geom_conaffinity", "geom_contype"]
    for name in changed:
        assert np.flatnonzero(getattr(ours, name) != getattr(theirs, name)).tolist() == [pedestal]


def test_the_pedestal_touches_nothing(env):
    env.reset(seed=0)
    pedestal = pedestal_geom(env.model)
    rng = np.random.default_rng(0)
    for _ in range(40):
        env.step(rng.uniform(CONTROL_LOW, CONTROL_HIGH))
        assert pedestal not in env.data.contact.geom


def test_sizes_and_actuators():
    model = load_model()
    assert (model.nq, model.nv, model.nu, model.opt.timestep) == (30, 29, 9, 0.002)
    np.testing.assert_array_equal(model.actuator_gainprm[:, 0], [870] * 4 + [120] * 3 + [500] * 2)


def test_limits_and_noise_are_those_of_the_robots_configuration():
    root = ElementTree.parse(model_path().parents[1] / "franka_assets" / "franka_config.xml").getroot()
    rows = [root.find(f"qpos{index}").attrib for index in range(30)]
    bounds = np.array([np.fromstring(row["pos_bound"], sep=" ") for row in rows])
    np.testing.assert_array_equal(NOISE_AMPLITUDE, [float(row["pos_noise_amp"]) for row in rows])
    np.testing.assert_array_equal(np.stack([CONTROL_LOW, CONTROL_HIGH], axis=1), bounds[:9])


# --- observations ---


def test_an_observation_is_the_positions_within_the_noise_and_zeros(env):
    observations = np.array([env.reset(seed=seed)[0] for seed in range(200)])
    assert observations.dtype == np.float32 and observations.shape == (200, 60)
    np.testing.assert_array_equal(observations[:, 30:], 0.0)
    noise = observations[:, :30] - INITIAL_QPOS
    bound = NOISE_RATIO * NOISE_AMPLITUDE
    assert (np.abs(noise) <= bound + 1e-6).all()
    np.testing.assert_allclose(np.abs(noise).max(axis=0), bound, rtol=0.05, atol=1e-6)
    assert np.abs(np.corrcoef(noise.T) - np.eye(30)).max() < 0.35


def test_only_the_noise_depends_on_the_seed(env):
    quiet = KitchenEnv(noise_ratio=0.0)
    np.testing.assert_array_equal(quiet.reset(seed=0)[0], quiet.reset(seed=1)[0])
    np.testing.assert_array_equal(env.reset(seed=4)[0], env.reset(seed=4)[0])
    assert not np.array_equal(env.reset(seed=4)[0], env.reset(seed=5)[0])


def test_episodes_repeat_bit_for_bit_whatever_ran_before(env):
    actions = np.random.default_rng(1).uniform(CONTROL_LOW, CONTROL_HIGH, size=(20, 9))
    run = lambda env: (env.reset(seed=3), np.array([env.step(action)[0] for action in actions]))[1]
    first = run(env)
    env.reset(seed=8)
    env.step(actions[5])
    np.testing.assert_array_equal(first, run(env))
    np.testing.assert_array_equal(first, run(KitchenEnv()))


# --- actions ---


def test_control_counts_from_the_noisy_observation(env):
    obs, _ = env.reset(seed=0)
    env.step(np.full(9, 100.0))
    np.testing.assert_allclose(env.data.ctrl, np.clip(obs[:9] + 10 * 0.08, CONTROL_LOW, CONTROL_HIGH), atol=1e-6)
    velocity = KitchenEnv(abs_action=False)
    obs, _ = velocity.reset(seed=0)
    action = np.array([0.5, -0.1, 2.0, -0.5, 0.3, 0.2, -7.0, 0.01, -0.01])
    velocity.step(action)
    expected = obs[:9] + 2.0 * np.clip(action, -1, 1) * 0.08
    np.testing.assert_allclose(velocity.data.ctrl, np.clip(expected, CONTROL_LOW, CONTROL_HIGH), atol=1e-6)


def test_absolute_and_velocity_actions_of_one_control_do_the_same():
    absolute, velocity = KitchenEnv(abs_action=True, noise_ratio=0.0), KitchenEnv(abs_action=False, noise_ratio=0.0)
    obs, _ = absolute.reset(seed=0)
    velocity.reset(seed=0)
    for step in range(20):
        target = obs[:9].astype(np.float64) + 0.1 * np.sin(step + np.arange(9))
        speed = (target - velocity.data.qpos[:9]) / 0.08 / 2.0
        assert (np.abs(speed) <= 1).all()
        obs = absolute.step(target)[0]
        velocity.step(speed)
    np.testing.assert_allclose(absolute.data.qpos, velocity.data.qpos, atol=1e-9)


def test_a_recorded_trace_is_reproduced():
    """Joint positions 1-7 after 30 control steps of a known motion, as this project first simulated them (mujoco
    3.2.7)."""
    env = KitchenEnv(noise_ratio=0.0)
    env.reset(seed=0)
    for step in range(30):
        env.step(INITIAL_QPOS[:9] + 0.3 * np.sin(0.2 * step + np.arange(9)))
    np.testing.assert_allclose(env.data.qpos[:9], TRACE, atol=1e-5)
    np.testing.assert_allclose(env.data.time, 30 * 0.08)


TRACE = np.array(
    [-0.0322728, -1.68740648, 2.15172322, -2.25882745, 0.19147633, 0.43665571, 1.36725145, 0.01838996, 0.04005935]
)


@pytest.mark.parametrize("action", [np.zeros(8), np.zeros((1, 9)), np.full(9, np.nan), [1.0] * 8 + [np.inf]])
def test_bad_actions_are_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="nine finite numbers"):
        env.step(action)


def test_using_an_environment_before_reset_is_refused(env):
    for use in (env.render, lambda: env.step(np.zeros(9))):
        with pytest.raises(RuntimeError, match="reset"):
            use()


# --- episodes ---


def test_rewards_and_the_end_of_an_episode(env):
    start = with_goals(*TASKS[1:])
    _, info = env.reset(seed=0, options={"qpos": start})
    assert not info["is_success"] and info["completed_tasks"] == ()
    _, reward, terminated, truncated, info = env.step(start[:9])
    done = set(info["completed_tasks"])
    assert reward == len(done) >= 5 and info["is_success"] and not terminated and not truncated
    env.reset(seed=0, options={"qpos": with_goals(*TASKS)})
    assert env.step(start[:9])[2] == (len(env.completed.order) == 7)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"qpos": np.zeros(29)}, "30 finite"),
        ({"qvel": np.full(29, np.nan)}, "29 finite"),
        ({"goal": 1}, "unknown reset options"),
    ],
)
def test_bad_reset_options_are_refused(env, options, message):
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0, options=options)


# --- frames ---


def test_frames(env):
    env.reset(seed=0)
    try:
        frame = env.render()
    except offscreen.RenderingError as error:
        pytest.skip(f"no OpenGL on this machine: {error}")
    assert frame.shape == (240, 360, 3) and frame.dtype == np.uint8 and frame.std() > 20
    for _ in range(3):
        env.step(INITIAL_QPOS[:9] + 0.5)
    assert np.abs(env.render().astype(int) - frame).max() > 50


def test_without_opengl_the_error_says_what_to_install(monkeypatch, env):
    def broken(*arguments):
        raise AttributeError("no EGL here")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    env.reset(seed=0)
    with pytest.raises(offscreen.RenderingError, match="no EGL here.*libosmesa6.*eval.n_videos=0"):
        env.render()


def test_the_users_choice_of_opengl_is_kept(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    offscreen.choose_backend()
    assert offscreen.backend() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(offscreen.ctypes.util, "find_library", lambda name: "lib" if name == "OSMesa" else None)
    offscreen.choose_backend()
    assert offscreen.backend() == "osmesa"
