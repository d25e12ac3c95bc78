import json

import pytest

from diffusion_policy.env_runner.episodes import Episode, EpisodeResult, append_episode, load_episodes, missing_episodes


def result(index, **changes):
    values = {
        "index": index,
        "seed": 100 + index,
        "split": "test",
        "score": 0.1 * index,
        "max_reward": 0.5,
        "sum_reward": 1.5,
        "success": False,
        "truncated": True,
        "env_steps": 300,
        "policy_calls": 38,
        "metrics": {"p1": 1.0},
        "video": None,
    }
    return EpisodeResult(**{**values, **changes})


def test_round_trip_in_order_of_index(tmp_path):
    path = tmp_path / "episodes.jsonl"
    assert load_episodes(path) == []
    for index in (2, 0, 1):
        append_episode(path, result(index))
    assert load_episodes(path) == [result(0), result(1), result(2)]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_cut_off_by_a_kill_is_dropped_and_can_be_written_again(tmp_path, cut):
    path = tmp_path / "episodes.jsonl"
    append_episode(path, result(0))
    append_episode(path, result(1))
    path.write_bytes(path.read_bytes()[:-cut])
    assert load_episodes(path) == [result(0)]
    append_episode(path, result(1))
    assert load_episodes(path) == [result(0), result(1)]
    assert [p.name for p in tmp_path.iterdir()] == ["episodes.jsonl"]


def test_cut_off_first_line(tmp_path):
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"index": 0, "se')
    assert load_episodes(path) == [] and path.read_text() == ""


@pytest.mark.parametrize("line", ["not json", "[1]", '{"index": 1}', json.dumps({**result(1).to_dict(), "other": 1})])
def test_a_damaged_file_is_refused(tmp_path, line):
    path = tmp_path / "episodes.jsonl"
    append_episode(path, result(0))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match="line 2"):
        load_episodes(path)


@pytest.mark.parametrize(
    "name, value",
    [
        ("index", None),
        ("index", -1),
        ("index", []),
        ("index", "1"),
        ("seed", 1.5),
        ("split", "val"),
        ("split", {}),
        ("score", float("nan")),
        ("score", "high"),
        ("score", 10**400),
        ("success", 1),
        ("env_steps", True),
        ("metrics", []),
        ("metrics", {"p1": None}),
        ("video", 3),
    ],
)
def test_a_row_with_a_value_of_another_kind_is_refused(tmp_path, name, value):
    (tmp_path / "episodes.jsonl").write_text(json.dumps({**result(1).to_dict(), name: value}) + "\n")
    with pytest.raises(ValueError, match=f"line 1 is not an episode result .*{name}"):
        load_episodes(tmp_path / "episodes.jsonl")


@pytest.mark.parametrize("line", ["[" * 100_000, "9" * 10_000, "\x00", "null"])
def test_a_row_that_is_no_record_is_refused(tmp_path, line):
    (tmp_path / "episodes.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match="line 1 is not an episode result"):
        load_episodes(tmp_path / "episodes.jsonl")


def test_an_episode_written_twice_is_refused(tmp_path):
    for _ in range(2):
        append_episode(tmp_path / "episodes.jsonl", result(0))
    with pytest.raises(ValueError, match="twice"):
        load_episodes(tmp_path / "episodes.jsonl")


def test_missing_episodes():
    plan = [Episode(i, 100 + i, "test") for i in range(3)]
    assert missing_episodes(plan, [result(1)]) == [plan[0], plan[2]]
    with pytest.raises(ValueError, match="not part of this evaluation"):
        missing_episodes(plan, [result(1, seed=7)])
    with pytest.raises(ValueError, match="split"):
        Episode(0, 0, "val")
