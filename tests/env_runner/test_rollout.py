import dataclasses

import numpy as np
import pytest
from toy_env import make_toy_camera, toy_factory

from diffusion_policy.env_runner.episodes import Episode, append_episode, load_episodes, missing_episodes
from diffusion_policy.env_runner.rollout import rollout
from diffusion_policy.env_runner.vector import VectorEnv

EPISODES = [Episode(index, 100 + index, "test") for index in range(11)]


def act(obs, active, episodes, chunk_index):
    """Acts on every row by itself; the noise depends on the episode and the chunk, like a policy's."""
    actions = np.zeros((len(obs), 4, 2), dtype=np.float32)
    for row, episode in enumerate(episodes):
        if episode is not None:
            rng = np.random.default_rng([episode.seed, chunk_index[row]])
            actions[row] = 0.3 * rng.normal(size=(4, 2)) - 0.5 * obs[row, -1, :2]
    return actions


def run(episodes, n_workers=0, act=act, **options):
    with VectorEnv(toy_factory, n_envs=4, n_workers=n_workers) as env:
        return rollout(act, env, episodes, **options)


def without_pid(results):
    return [dataclasses.replace(result, metrics={}) for result in results]


def test_every_episode_is_run_once_in_its_own_row():
    seen = {}

    def spy(obs, active, episodes, chunk_index):
        assert obs.shape == (4, 2, 3) and obs.dtype == np.float32
        for row, episode in enumerate(episodes):
            assert active[row] == (episode is not None)
            if episode is None:
                assert not obs[row].any()
            else:
                assert episode.index % 4 == row
                seen.setdefault(episode.index, []).append(chunk_index[row])
        return act(obs, active, episodes, chunk_index)

    finished = []
    results, stats = run(EPISODES, act=spy, on_episode=finished.append)
    assert [result.index for result in results] == list(range(11))
    assert sorted(finished, key=lambda result: result.index) == results
    for result in results:
        assert result.seed == 100 + result.index and result.split == "test"
        assert result.env_steps == min(9, 5 + result.seed % 7)
        assert result.truncated == (5 + result.seed % 7 > 9)
        assert result.policy_calls == -(-result.env_steps // 4)
        assert seen[result.index] == list(range(result.policy_calls))
    assert stats.env_steps == sum(result.env_steps for result in results)
    assert stats.chunks == sum(result.policy_calls for result in results)
    assert 0 < stats.policy_share < 1 and stats.env_steps_per_s > 0
    assert stats.policy_s + stats.env_s <= stats.wall_s + 1e-6
    assert set(stats.to_dict()) >= {"wall_s", "policy_share", "env_steps_per_s"}


def test_two_batches_in_turn_give_the_numbers_of_one():
    """An episode is in the same row of a batch of as many rows; the environments of the other batch move meanwhile."""
    rows = []

    def spy(obs, active, episodes, chunk_index):
        assert obs.shape == (2, 2, 3) and len(active) == len(episodes) == len(chunk_index) == 2
        assert all(episode is None or episode.index % 2 == row for row, episode in enumerate(episodes))
        rows.append([episode and episode.index for episode in episodes])
        return act(obs, active, episodes, chunk_index)

    with VectorEnv(toy_factory, n_envs=2, n_workers=1) as env:
        one, _ = rollout(act, env, EPISODES)
    two, stats = run(EPISODES, n_workers=2, act=spy, batches=2)
    assert without_pid(two) == without_pid(one) and stats.chunks == sum(result.policy_calls for result in one)
    assert rows[:2] == [[0, 1], [2, 3]]  # in turn
    with pytest.raises(ValueError, match="3 batches"):
        run(EPISODES, batches=3)


def test_a_killed_evaluation_resumes_to_the_same_numbers(tmp_path):
    path = tmp_path / "episodes.jsonl"
    full, _ = run(EPISODES, n_workers=2)

    class Killed(Exception):
        pass

    def stop_after_five(result):
        append_episode(path, result)
        if len(load_episodes(path)) == 5:
            raise Killed

    with pytest.raises(Killed):
        run(EPISODES, n_workers=2, on_episode=stop_after_five)
    path.write_bytes(path.read_bytes()[:-10])  # and the kill came in the middle of the fifth line
    rest = missing_episodes(EPISODES, load_episodes(path))
    assert len(rest) == 7
    run(rest, n_workers=2, on_episode=lambda result: append_episode(path, result))
    assert without_pid(load_episodes(path)) == without_pid(full)


def test_videos_of_the_chosen_episodes(tmp_path):
    results, _ = run(EPISODES[:4], n_workers=2, media_dir=tmp_path / "media", video_indices=[1, 3])
    assert [result.video for result in results] == [None, "media/test_101.mp4", None, "media/test_103.mp4"]
    assert sorted(p.name for p in (tmp_path / "media").iterdir()) == ["test_101.mp4", "test_103.mp4"]


def test_bad_numbers_name_the_episode():
    def bad_act(obs, active, episodes, chunk_index):
        actions = act(obs, active, episodes, chunk_index)
        actions[2] = np.nan
        return actions

    with pytest.raises(ValueError, match=r"actions that are not finite in episode 2 \(test seed 102\)"):
        run(EPISODES, act=bad_act)
    with pytest.raises(ValueError, match=r"observation that is not finite in episode 0 \(train seed 1005\)"):
        run([Episode(0, 1005, "train")])
    with pytest.raises(ValueError, match=r"\[4, Ta, Da\]"):
        run(EPISODES, act=lambda *args: np.zeros((3, 4, 2)))
    with pytest.raises(ValueError, match="same index"):
        run([EPISODES[0], EPISODES[0]])
    with pytest.raises(ValueError, match="media_dir"):
        run(EPISODES, video_indices=[0])


def test_idle_rows_may_hold_anything():
    def careless(obs, active, episodes, chunk_index):
        actions = act(obs, active, episodes, chunk_index)
        actions[~active] = np.nan
        return actions

    assert without_pid(run(EPISODES, act=careless)[0]) == without_pid(run(EPISODES)[0])


def test_no_episodes():
    results, stats = run([])
    assert results == [] and stats.policy_calls == 0 and stats.policy_share == 0.0 and stats.env_steps_per_s == 0.0


def test_named_observations_reach_the_policy_by_name():
    seen = []

    def look(obs, active, episodes, chunk_index):
        assert obs["state"].shape == (2, 2, 3) and obs["image"].shape == (2, 2, 1, 2, 2)
        for row in np.flatnonzero(~active):
            assert not obs["state"][row].any() and not obs["image"][row].any()
        seen.append(obs["image"][:, -1, 0, 0, 0].tolist())
        return act(obs["state"], active, episodes, chunk_index)

    with VectorEnv(make_toy_camera, n_envs=2, n_workers=2) as env:
        results, _ = rollout(look, env, EPISODES[:3])
    with VectorEnv(toy_factory, n_envs=2, n_workers=0) as env:
        expected, _ = rollout(act, env, EPISODES[:3])
    assert [result.score for result in results] == [result.score for result in expected]
    assert seen[0] == [0, 0] and seen[1] == [4, 4]
