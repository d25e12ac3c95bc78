"""Block Pushing demonstrations as training windows."""

import numpy as np
import pytest
import torch

from diffusion_policy.dataset.block_pushing_dataset import load_block_pushing, scene_like, steps_towards
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.sequence_dataset import Windows
from diffusion_policy.dataset.stored_demos import write_replay_buffer


def episode(length, seed, obs_dim=16):
    """An expert that steps straight to waypoints within and beyond its reach, and now and then circles a place."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(0.2, 0.45, (length, obs_dim)).astype(np.float32)
    aim = obs[:, 8:10]
    way = rng.uniform(-1, 1, (length, 2)) * np.where(rng.uniform(size=(length, 1)) < 0.5, 0.02, 0.2)
    centre = np.where(rng.uniform(size=(length, 1)) < 0.3, aim + 0.03, np.nan)
    intention = np.concatenate([aim + way, np.full((length, 1), 0.03), centre], axis=1)
    size = np.linalg.norm(way, axis=1, keepdims=True)
    return {"obs": obs, "action": np.float32(way * np.minimum(1, 0.03 / size)), "intention": np.float32(intention)}


@pytest.fixture
def episodes():
    return [episode(length, seed) for seed, length in enumerate((9, 6, 12, 7))]


@pytest.fixture
def path(tmp_path, episodes):
    write_replay_buffer(tmp_path / "demos.zarr", episodes, {})
    return tmp_path / "demos.zarr"


def test_windows(path, episodes):
    train, val = load_block_pushing(path, Windows(5, pad_before=2, pad_after=0, val_ratio=0.25, seed=0))
    assert len(train) + len(val) == sum(length - 5 + 1 + 2 for length in (9, 6, 12, 7))
    everything, none = load_block_pushing(path, Windows(5, pad_before=2, val_ratio=0.0))
    assert none is None
    first = everything[0]  # two rows before the start of the first episode
    np.testing.assert_array_equal(first["obs"], episodes[0]["obs"][[0, 0, 0, 1, 2]])
    np.testing.assert_array_equal(first["action"], episodes[0]["action"][[0, 0, 0, 1, 2]])


def test_further_demonstrations_follow_the_first(path, tmp_path, episodes):
    more = [episode(8, 10), episode(6, 11)]
    write_replay_buffer(tmp_path / "more.zarr", more, {})
    both, _ = load_block_pushing(path, Windows(5, pad_before=2, val_ratio=0.0), further_paths=[tmp_path / "more.zarr"])
    first, _ = load_block_pushing(path, Windows(5, pad_before=2, val_ratio=0.0))
    assert len(both) == len(first) + (8 - 5 + 1 + 2) + (6 - 5 + 1 + 2)
    np.testing.assert_array_equal(both[len(first)]["obs"], more[0]["obs"][[0, 0, 0, 1, 2]])  # no window over the seam
    np.testing.assert_array_equal(both[len(first) - 1]["obs"], episodes[-1]["obs"][-5:])
    write_replay_buffer(tmp_path / "wrong.zarr", [episode(8, 0, obs_dim=10)], {})
    with pytest.raises(DatasetError, match="wrong.zarr.*not Block Pushing"):
        load_block_pushing(path, Windows(5), further_paths=[tmp_path / "wrong.zarr"])


def test_absolute_actions_are_the_targets_that_the_relative_ones_led_to(path, episodes):
    relative, _ = load_block_pushing(path, Windows(5, val_ratio=0.0))
    absolute, _ = load_block_pushing(path, Windows(5, val_ratio=0.0), abs_action=True)
    expected = relative.fields["obs"][:, 8:10] + relative.fields["action"]
    np.testing.assert_allclose(absolute.fields["action"], expected, atol=1e-6)


def test_absolute_actions_stay_in_the_workspace(tmp_path):
    demo = episode(6, 0)
    demo["obs"][:, 8:10] = [0.69, 0.49]
    demo["action"][:] = 0.03
    write_replay_buffer(tmp_path / "edge.zarr", [demo], {})
    absolute, _ = load_block_pushing(tmp_path / "edge.zarr", Windows(5, val_ratio=0.0), abs_action=True)
    np.testing.assert_allclose(absolute.fields["action"], [[0.7, 0.5]] * 6, atol=1e-6)


def test_the_effector_target_can_be_hidden(path):
    hidden, _ = load_block_pushing(path, Windows(5, val_ratio=0.0), abs_action=True, obs_eef_target=False)
    shown, _ = load_block_pushing(path, Windows(5, val_ratio=0.0), abs_action=True)
    assert (hidden.fields["obs"][:, 8:10] == 0).all() and (shown.fields["obs"][:, 8:10] != 0).all()
    np.testing.assert_array_equal(hidden.fields["action"], shown.fields["action"])
    normalizer = hidden.fit_normalizer()
    assert normalizer.normalize({"obs": hidden.fields["obs"]})["obs"].isfinite().all()


def test_a_missing_data_set_says_how_to_make_it(tmp_path):
    with pytest.raises(DatasetError, match="bac demos task=block_pushing"):
        load_block_pushing(tmp_path / "absent.zarr", Windows(5))


def test_another_tasks_data_is_refused(tmp_path):
    write_replay_buffer(tmp_path / "other.zarr", [episode(8, 0, obs_dim=20)], {})
    with pytest.raises(DatasetError, match=r"\[8, 20\].*not Block Pushing"):
        load_block_pushing(tmp_path / "other.zarr", Windows(5))


@pytest.mark.parametrize("abs_action", [False, True])
def test_a_displaced_effector_is_led_back_to_the_demonstration(path, abs_action):
    settings = {"windows": Windows(5, pad_before=2, val_ratio=0.25, seed=0), "abs_action": abs_action}
    plain, plain_val = load_block_pushing(path, **settings)
    noisy, noisy_val = load_block_pushing(path, **settings, effector_noise=0.002, n_obs_steps=3)
    rows = torch.arange(len(plain))
    was, now = plain[rows], noisy[rows]
    displacement = now["obs"][..., 8:10] - was["obs"][..., 8:10]
    assert 0 < displacement[:, :3].abs().max() < 0.012 and (displacement[:, 3:] == 0).all()
    torch.testing.assert_close(now["obs"][..., 6:8] - was["obs"][..., 6:8], displacement)  # the effector goes along
    others = [i for i in range(16) if i not in (6, 7, 8, 9)]
    assert torch.equal(now["obs"][..., others], was["obs"][..., others])
    for key in ("obs", "action"):
        torch.testing.assert_close(noisy_val[torch.arange(4)][key], plain_val[torch.arange(4)][key])
    # An undisturbed step is the demonstration's; a disturbed one leads to the same waypoint, as far as the expert would
    # go.
    torch.testing.assert_close(now["action"][:, 3:], was["action"][:, 3:], atol=1e-6, rtol=0)
    heading, aim = noisy.intention[noisy.rows[rows]], was["obs"][..., 8:10] + displacement
    step = now["action"] - aim if abs_action else now["action"]
    straight, wanted = heading[..., 3].isnan(), heading[..., :2] - aim
    reached, length = wanted.norm(dim=-1) < 0.03, step.norm(dim=-1)
    assert 0.2 < reached.float().mean() < 0.8 and 0.4 < straight.float().mean() < 0.95
    torch.testing.assert_close(step[straight & reached], wanted[straight & reached], atol=1e-6, rtol=0)
    far = straight & ~reached
    torch.testing.assert_close(length[far], torch.full_like(length[far], 0.03), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        step[far] / 0.03, wanted[far] / wanted[far].norm(dim=-1, keepdim=True), atol=1e-4, rtol=0
    )
    assert length.max() < 0.0301


def test_a_circling_expert_keeps_its_lead():
    centre, start = torch.tensor([0.4, 0.0]), torch.tensor([0.43, 0.0])
    waypoint = centre + 0.02 * torch.tensor([np.cos(0.3), np.sin(0.3)], dtype=torch.float32)
    intention = torch.cat([waypoint, torch.tensor([0.1]), centre])
    torch.testing.assert_close(start + steps_towards(intention, start, start), waypoint)
    torch.testing.assert_close(
        start + steps_towards(intention, start, centre + torch.tensor([0.05, 0.0])) + torch.tensor([0.02, 0.0]),
        waypoint,
    )  # farther out: the same place
    quarter = steps_towards(intention, start, centre + torch.tensor([0.0, 0.03]))
    ahead = waypoint - centre
    torch.testing.assert_close(torch.tensor([0.0, 0.03]) + quarter, torch.stack([-ahead[1], ahead[0]]))
    slow = torch.cat([waypoint, torch.tensor([0.001]), centre])
    torch.testing.assert_close(steps_towards(slow, start, start).norm(), torch.tensor(0.001))


def test_demonstrations_from_elsewhere_cannot_be_displaced(tmp_path):
    write_replay_buffer(tmp_path / "other.zarr", [{name: episode(8, 0)[name] for name in ("obs", "action")}], {})
    with pytest.raises(DatasetError, match="effector_noise=0.*bac demos"):
        load_block_pushing(tmp_path / "other.zarr", Windows(5), effector_noise=0.002, n_obs_steps=3)
    load_block_pushing(tmp_path / "other.zarr", Windows(5))


def test_displacements_repeat_and_differ_between_batches(path):
    noisy, _ = load_block_pushing(path, Windows(5, val_ratio=0.0), effector_noise=0.002, n_obs_steps=3)
    batch = torch.tensor([3, 1, 4])
    assert torch.equal(noisy[batch]["obs"], noisy[batch]["obs"])
    assert not torch.equal(noisy[batch]["obs"][0], noisy[torch.tensor([3, 4, 1])]["obs"][0])
    assert noisy[3]["obs"].shape == (5, 16)
    undisturbed = noisy.fit_normalizer().normalize({"obs": noisy.fields["obs"]})["obs"]
    torch.testing.assert_close(undisturbed.amax(0), torch.ones(16))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "n_obs_steps"),
        ({"n_obs_steps": 6}, "n_obs_steps"),
        ({"n_obs_steps": 3, "effector_noise": -0.1}, "negative"),
    ],
)
def test_unusable_displacements(path, settings, message):
    with pytest.raises(ValueError, match=message):
        load_block_pushing(path, Windows(5), **{"effector_noise": 0.01, **settings})


def pairs(obs, start):
    return obs[..., start : start + 6].unflatten(-1, (2, 3))


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_scenes_that_look_alike(path, noise):
    """Blocks and targets exchange places as wholes and for a whole window; blocks turn by quarters; nothing else
    moves."""
    windows = Windows(5, pad_before=2, val_ratio=0.25, seed=0)
    plain, plain_val = load_block_pushing(path, windows)
    scenes, val = load_block_pushing(path, windows, effector_noise=noise, n_obs_steps=3, symmetries=True)
    rows = torch.arange(len(plain)).repeat(8)
    was, now = plain[rows], scenes[rows]
    undisturbed = slice(3 if noise else 0, None)
    torch.testing.assert_close(now["action"][:, undisturbed], was["action"][:, undisturbed], atol=1e-6, rtol=0)
    assert torch.equal(now["obs"][:, undisturbed, 6:10], was["obs"][:, undisturbed, 6:10])
    for start in (0, 10):
        before, after = pairs(was["obs"], start), pairs(now["obs"], start)
        same, exchanged = ((after == other)[..., :2].flatten(1).all(1) for other in (before, before.flip(-2)))
        assert (same | exchanged).all() and 0.3 < same.float().mean() < 0.7
        before = torch.where(exchanged[:, None, None, None], before.flip(-2), before)
        if start == 0:
            turns = ((after - before)[..., 2] / (torch.pi / 2)).remainder(2)
            torch.testing.assert_close(turns, turns[:, :1].round().expand_as(turns), atol=1e-4, rtol=0)
            assert 0.3 < turns.mean() < 0.7
        else:
            off = torch.minimum(after[..., 2], torch.pi - after[..., 2])  # of a whole turn
            assert off.max() <= torch.pi / 30 + 1e-6 and (after[..., 2] == after[:, :1, :, 2]).all()
    assert ((pairs(now["obs"], 0)[..., 2] >= 0) & (pairs(now["obs"], 0)[..., 2] < torch.pi)).all()
    assert torch.equal(val[torch.arange(4)]["obs"], plain_val[torch.arange(4)]["obs"])
    assert torch.equal(scenes[rows]["obs"], now["obs"])  # repeats
    assert scenes[3]["obs"].shape == (5, 16)


def test_the_expert_acts_alike_in_scenes_that_look_alike():
    oracle = pytest.importorskip("diffusion_policy.env.block_pushing.oracle")
    rng = np.random.default_rng(0)
    obs = np.zeros((200, 16), dtype=np.float32)
    for column, low, high in (
        (0, 0.25, 0.55),
        (1, -0.4, 0.1),
        (2, 0, np.pi),
        (3, 0.25, 0.55),
        (4, -0.4, 0.1),
        (5, 0, np.pi),
        (8, 0.2, 0.6),
        (9, -0.4, 0.2),
        (10, 0.2, 0.6),
        (11, 0.15, 0.25),
        (13, 0.2, 0.6),
        (14, 0.15, 0.25),
    ):
        obs[:, column] = rng.uniform(low, high, 200)
    other = scene_like(torch.from_numpy(obs)[:, None], torch.Generator().manual_seed(0))[:, 0].numpy()

    def actions(row, phase):  # one for every order, however it is numbered
        return sorted(tuple(np.round(oracle_of(order, phase).action(row), 5)) for order in range(4))

    def oracle_of(order, phase):
        expert = oracle.MultimodalPushOracle(np.random.RandomState(0))
        expert.order, expert.phase = oracle.ORDERS[order], phase
        return expert

    for phase in (oracle.Phase.APPROACH, oracle.Phase.CONTACT, oracle.Phase.PUSH):
        for row, alike in zip(obs, other):
            np.testing.assert_allclose(actions(row, phase), actions(alike, phase), atol=2e-5)
