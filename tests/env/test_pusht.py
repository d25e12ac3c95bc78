"""Push-T against the human demonstrations: whole episodes where they are present, numbers from them everywhere."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("pymunk")
pytest.importorskip("shapely")

from diffusion_policy.env.extras import MissingExtraError, import_extra
from diffusion_policy.env.pusht.definition import GOAL_POSE
from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env.pusht.pusht_keypoints_env import BLOCK_KEYPOINTS, PushTKeypointsEnv, block_keypoints
from tests.conftest import ROOT

AGENT_TOLERANCE = 2e-5  # px; the recording is float32, whose spacing is 3e-5 at 500
BLOCK_TOLERANCE = 0.17  # px
ANGLE_TOLERANCE = 0.0025  # rad

# The first four seconds of demonstration 3, in which the stem is hit and turns the tee by 86 degrees.
START = [412.0, 202.0, 323.357177734375, 312.97900390625, 3.747904062271118]
ACTIONS = [
    [435, 183],
    [426, 187],
    [425, 187],
    [429, 195],
    [437, 205],
    [444, 210],
    [448, 217],
    [449, 221],
    [449, 224],
    [449, 227],
    [447, 232],
    [445, 235],
    [441, 240],
    [438, 243],
    [435, 244],
    [432, 246],
    [429, 245],
    [425, 241],
    [418, 234],
    [413, 230],
    [408, 227],
    [403, 226],
    [393, 224],
    [383, 222],
    [369, 217],
    [363, 215],
    [352, 212],
    [335, 206],
    [324, 204],
    [315, 202],
    [308, 201],
    [299, 200],
    [286, 198],
    [277, 198],
    [270, 198],
    [265, 200],
    [258, 204],
    [247, 208],
    [236, 214],
    [228, 220],
]
STATE_AFTER_20 = [420.5078125, 236.19192504882812, 323.357177734375, 312.97900390625, 3.747904062271118]
STATE_AFTER_40 = [241.17840576171875, 212.2541961669922, 320.7597351074219, 312.6865234375, 2.2425949573516846]


@pytest.fixture(scope="module")
def demonstrations(pusht_zarr):
    zarr = pytest.importorskip("zarr")
    root = zarr.open(str(pusht_zarr), mode="r")
    ends = root["meta/episode_ends"][:]
    return root["data"], np.concatenate([[0], ends[:-1]]), ends


def assert_same_state(state, expected):
    np.testing.assert_allclose(state[:2], expected[:2], rtol=0, atol=AGENT_TOLERANCE)
    np.testing.assert_allclose(state[2:4], expected[2:4], rtol=0, atol=BLOCK_TOLERANCE)
    turn = (state[4] - expected[4] + np.pi) % (2 * np.pi) - np.pi
    assert abs(turn) < ANGLE_TOLERANCE


def block_at(*pose):
    env = PushTEnv()
    env.reset(options={"state": [30.0, 30.0, *pose]})
    return env


# Seeds and initial states


@pytest.mark.parametrize(
    "legacy, seed, state",
    [
        (True, 0, [222, 97, 222.99382, 381.59903, 3.00799942]),  # the first states of demonstrations 0 and 3
        (True, 3, START),
        (True, 100000, [235, 124, 299.61289, 145.20158, 5.37825788]),
        (False, 0, [222, 97, 217, 292, 3.00799942]),
        (False, 100000, [235, 124, 335, 128, 5.37825788]),
    ],
)
def test_initial_state_of_a_seed(legacy, seed, state):
    obs, info = PushTEnv(legacy=legacy).reset(seed=seed)
    np.testing.assert_allclose(obs, state, rtol=0, atol=2e-5)
    assert not info["is_success"] and info["n_contacts"] == 0


def test_legacy_seeds_start_every_demonstration(demonstrations):
    data, starts, _ = demonstrations
    env = PushTEnv(legacy=True)
    states = data["state"][:][starts]
    for seed, expected in enumerate(states):
        np.testing.assert_allclose(env.reset(seed=seed)[0], expected, rtol=0, atol=2e-5)


def test_an_unseeded_reset_draws_from_the_generator_of_the_last_seed():
    env = PushTEnv()
    env.reset(seed=1)
    first, second = env.reset()[0], env.reset()[0]
    assert not np.allclose(first, second)
    env.reset(seed=1)
    np.testing.assert_array_equal(env.reset()[0], first)


# Physics


def test_replay_of_a_recorded_excerpt():
    env = PushTEnv()
    env.reset(options={"state": START})
    contacts = 0
    for count, action in enumerate(ACTIONS, start=1):
        obs, _, terminated, truncated, info = env.step(np.array(action))
        contacts += info["n_contacts"]
        assert not terminated and not truncated
        if count == 20:
            assert_same_state(obs, STATE_AFTER_20)
    assert_same_state(obs, STATE_AFTER_40)
    assert contacts > 0


@pytest.mark.parametrize("episode", [0, 8, 72, 205])
def test_replay_of_whole_demonstrations(demonstrations, episode):
    data, starts, ends = demonstrations
    rows = slice(starts[episode], ends[episode])
    states, actions = data["state"][rows], data["action"][rows]
    env = PushTEnv()
    obs, _ = env.reset(options={"state": states[0]})
    best = 0.0
    for expected, action in zip(states, actions):
        assert_same_state(obs, expected)
        obs, reward, *_ = env.step(action)
        best = max(best, reward)
    assert best > 0.8  # the demonstrators bring the tee to its goal


def test_an_episode_does_not_depend_on_earlier_ones():
    def play(env):
        obs = [env.reset(seed=7)[0]]
        obs += [env.step(obs[-1][2:4])[0] for _ in range(15)]
        return np.array(obs)

    env = PushTEnv(legacy=True)
    first = play(env)
    env.reset(seed=8)
    env.step([300.0, 300.0])
    np.testing.assert_array_equal(play(env), first)
    np.testing.assert_array_equal(play(PushTEnv(legacy=True)), first)


def test_walls_hold_the_block():
    env = PushTEnv()
    env.reset(options={"state": [256.0, 450.0, 256.0, 300.0, np.pi]})
    for y in np.linspace(440, -300, 120):
        obs, *_ = env.step([256.0, y])
    corners = [env.block.local_to_world(v) for v in ((60, 0), (-60, 0), (15, 120), (-15, 120))]
    assert min(corner.y for corner in corners) > 0


# Reward


@pytest.mark.parametrize(
    "shift, covered",
    [
        (0.0, 1.0),
        (15.0, (105 * 30 + 15 * 90) / 6300),
        (30.0, 90 * 30 / 6300),  # beyond its own width, the stem covers nothing of the goal
        (120.0, 0.0),
    ],
)
def test_coverage_of_a_block_shifted_along_its_bar(shift, covered):
    x, y, angle = GOAL_POSE
    env = block_at(x + shift * np.cos(angle), y + shift * np.sin(angle), angle)
    assert env.coverage() == pytest.approx(covered, abs=1e-9)
    _, reward, terminated, truncated, info = env.step([30.0, 30.0])
    assert reward == pytest.approx(min(covered / 0.95, 1.0), abs=1e-9)
    assert terminated == info["is_success"] == (covered > 0.95) and not truncated
    assert info["coverage"] == pytest.approx(covered, abs=1e-9)


# Keypoints


def test_keypoints_of_known_poses():
    np.testing.assert_allclose(block_keypoints(np.array([100.0, 200.0, 0.0])), BLOCK_KEYPOINTS + [100, 200])
    quarter_turn = np.stack([-BLOCK_KEYPOINTS[:, 1], BLOCK_KEYPOINTS[:, 0]], axis=1)
    np.testing.assert_allclose(block_keypoints(np.array([0.0, 0.0, np.pi / 2])), quarter_turn, atol=1e-12)


def test_keypoint_observation():
    env = PushTKeypointsEnv()
    obs, _ = env.reset(options={"state": [40.0, 50.0, 200.0, 220.0, 0.0]})
    assert obs.shape == env.observation_space.shape == (40,)
    np.testing.assert_allclose(obs[:2], [209.26978671, 310.04097352], atol=1e-8)
    np.testing.assert_array_equal(obs[18:20], [40, 50])
    np.testing.assert_array_equal(obs[20:], 1)


def test_recorded_keypoints(demonstrations):
    data, *_ = demonstrations
    states, keypoints = data["state"][:1000].astype(np.float64), data["keypoint"][:1000]
    error = np.array(
        [np.abs(block_keypoints(state[2:]) - recorded).max() for state, recorded in zip(states, keypoints)]
    )
    # In contact, the recorded keypoints differ a little from the recorded pose.
    assert np.median(error) < 5e-5 and error.max() < 0.5


# Pictures


@pytest.fixture
def pygame():
    pytest.importorskip("cv2")
    return pytest.importorskip("pygame")


def test_rendered_frame(pygame):
    env = PushTEnv(render_size=512)
    env.reset(options={"state": [400.0, 100.0, 120.0, 60.0, 0.0]})
    frame = env.render()
    assert frame.shape == (512, 512, 3) and frame.dtype == np.uint8
    assert frame[400, 60].tolist() == [255, 255, 255]  # table
    assert frame[256, 256].tolist() == [144, 238, 144]  # goal
    assert frame[100, 400].tolist() == [78, 126, 255]  # agent
    assert frame[75, 120].tolist() == [143, 163, 184]  # block
    env.step([60.0, 400.0])
    assert env.render()[400, 60].tolist() == [255, 0, 0]  # action
    env.render_action = False
    assert env.render()[400, 60].tolist() == [255, 255, 255]
    assert env.render(size=96).shape == (96, 96, 3)


def test_recorded_images(demonstrations, pygame):
    if pygame.version.vernum >= (2, 6):
        pytest.skip("pygame 2.6 fills polygons differently; the recorded pixels need pygame 2.5 or older")
    data, starts, ends = demonstrations
    rows = slice(starts[3], ends[3])
    env = PushTEnv(render_action=False)
    env.reset(options={"state": data["state"][rows][0]})
    for image, action in zip(data["img"][rows], data["action"][rows]):
        np.testing.assert_array_equal(env.render(), image)
        env.step(action)


# Errors and imports


@pytest.mark.parametrize("action", [[1.0], [np.nan, 1.0], [1.0, np.inf], [[1.0, 2.0]]])
def test_bad_actions_are_refused(action):
    env = PushTEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="two finite numbers"):
        env.step(np.array(action))


def test_bad_resets_are_refused():
    with pytest.raises(ValueError, match="five finite numbers"):
        PushTEnv().reset(options={"state": [1, 2, 3]})
    with pytest.raises(ValueError, match="unknown reset options"):
        PushTEnv().reset(options={"pose": [1, 2, 3]})


def test_a_missing_package_names_its_extra():
    with pytest.raises(MissingExtraError, match=r"pip install 'bac-workbench\[pusht\]'"):
        import_extra("no_such_simulator", "pusht")


def test_physics_need_no_renderer():
    code = (
        "import sys; from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv; "
        "env = PushTKeypointsEnv(); env.reset(seed=0); env.step([100.0, 100.0]); "
        "assert not {'pygame', 'cv2', 'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
