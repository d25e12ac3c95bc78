"""Who goes on in a tuning, on made-up scores: good settings reach the proof, bad ones never pass it."""

from __future__ import annotations

import numpy as np
import pytest

from bac_workbench.evaluation.noninferiority import least_pairs
from bac_workbench.evaluation.spending import spending
from bac_workbench.tuning.decisions import Screened, screen_out, standing, successive_halving
from bac_workbench.tuning.ledger import certification_block, recall, remember
from bac_workbench.tuning.proof import fixed_sequence
from diffusion_policy.common.config import ConfigError

MARGIN, ALPHA = 0.05, 0.05
LOOKS = [80, 120, 160, 200]
LEVELS = spending([n / LOOKS[-1] for n in LOOKS], ALPHA)
TIMES = {"slow": 60.0, "middle": 20.0, "fast": 8.0, "fastest": 4.0}
FULL_MS = 100.0


class Table:
    """Scores of candidates that fail where the full policy succeeds, each with its own probability."""

    def __init__(self, failures: dict[str, float], seed: int = 0):
        rng = np.random.default_rng(seed)
        self.full = rng.uniform(0.8, 1.0, 400)
        self.scores = {name: np.where(rng.random(400) < rate, 0.0, self.full) for name, rate in failures.items()}
        self.played: list[tuple[str, int]] = []

    def play(self, name: str, n: int) -> tuple[list[float], list[float]]:
        self.played.append((name, n))
        return self.scores[name][:n].tolist(), self.full[:n].tolist()


def halve(table: Table, rounds=(8, 16, 32), keep: int = 4):
    times = {name: TIMES[name] for name in table.scores}
    return successive_halving(times, FULL_MS, table.play, rounds, MARGIN, ALPHA, LOOKS[-1], keep)


def row(ms: float, energy: float, half: float = 0.01) -> Screened:
    return Screened(ms, energy, energy - half, energy + half)


def test_the_screen_drops_what_is_hopeless_and_what_another_one_clearly_beats():
    rows = {
        "far": row(2, 0.8),
        "beaten": row(30, 0.2),
        "near": row(20, 0.05),
        "hardly farther": row(10, 0.055),
        "faster": row(5, 0.1),
    }
    ended = screen_out(rows, FULL_MS, 0.5, 8)
    assert ended.keys() == {"far", "beaten"}
    assert "above 0.5" in ended["far"].why and "is faster and nearer" in ended["beaten"].why


def test_the_screen_keeps_as_many_as_asked_and_always_the_nearest():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = {f"c{i}": row(*pair, half=1.0) for i, pair in enumerate(rng.uniform(0.01, 0.4, (12, 2)))}
        for keep in (1, 3, 12):
            ended = screen_out(rows, FULL_MS, 2.0, keep)
            assert len(rows) - len(ended) == keep
            assert min(rows, key=lambda name: rows[name].energy) not in ended
        order = list(rows)
        rng.shuffle(order)
        assert (
            screen_out({name: rows[name] for name in order}, FULL_MS, 2.0, 3).keys()
            == screen_out(rows, FULL_MS, 2.0, 3).keys()
        )


def test_safe_and_daring_candidates_go_on():
    rows = {f"near{i}": row(50 + i, 0.01 * i, half=0.2) for i in range(6)}
    rows |= {f"fast{i}": row(2 + i, 0.1 + 0.01 * i, half=0.2) for i in range(6)}
    assert rows.keys() - screen_out(rows, FULL_MS, 0.5, 4).keys() == {"near0", "near1", "fast0", "fast1"}


def test_of_two_that_look_alike_the_one_that_is_known_better_goes_on():
    rows = {"vague": row(10, 0.03, half=0.1), "known": row(10, 0.04, half=0.02)}
    assert screen_out(rows, FULL_MS, 0.5, 1).keys() == {"vague"}


def test_a_not_a_number_distance_is_hopeless():
    assert screen_out({"broken": row(1, float("nan")), "fine": row(9, 0.1)}, FULL_MS, 0.5, 8).keys() == {"broken"}


def test_a_cheap_setting_that_fails_is_given_up_and_the_good_ones_reach_the_proof():
    table = Table({"slow": 0.0, "middle": 0.0, "fast": 0.0, "fastest": 0.6})
    selection = halve(table)
    assert "fastest" not in selection.survivors and "worse by more than 0.05" in selection.ended["fastest"].why
    assert selection.survivors[-1] == "fast"
    assert ("fastest", 32) not in table.played  # no more episodes were spent on it


def test_every_candidate_survives_or_ends_once_and_survivors_are_slowest_first():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        selection = halve(Table({name: rng.choice([0.0, 0.02, 0.3]) for name in TIMES}, seed), keep=3)
        assert selection.survivors == sorted(selection.survivors, key=lambda name: -TIMES[name])
        assert set(selection.survivors).isdisjoint(selection.ended)
        assert {*selection.survivors, *selection.ended} == set(TIMES) and len(selection.survivors) <= 3


def test_a_slower_candidate_that_is_no_safer_is_no_survivor():
    selection = halve(Table({"slow": 0.0, "fast": 0.0}))
    assert selection.survivors == ["fast"] and "fast is faster and as safe" in selection.ended["slow"].why


def test_a_safe_candidate_stays_in_the_sequence_beside_a_faster_one_with_a_lucky_mean():
    """A fast one that differs a lot and happens to gain a little must not drive out the one that hardly differs."""
    full = np.full(32, 0.75)
    lucky = full + np.where(np.arange(32) % 2, 0.25, -0.24)
    scores = {"slow": full - 0.002, "fast": lucky}
    times = {name: TIMES[name] for name in scores}
    play = lambda name, n: (scores[name][:n].tolist(), full[:n].tolist())
    selection = successive_halving(times, FULL_MS, play, (8, 16, 32), MARGIN, ALPHA, LOOKS[-1], 4)
    states = selection.standings
    assert states["fast"].difference > states["slow"].difference and states["fast"].power < states["slow"].power
    assert selection.survivors == ["slow", "fast"]


def test_power_grows_with_the_score_and_agreement_is_no_certainty():
    full = np.full(16, 0.9)
    powers = [standing(full - loss, full, MARGIN, ALPHA, 200).power for loss in (0.2, 0.05, 0.02, 0.0)]
    assert powers == sorted(powers) and powers[0] < 0.05 and 0.5 < powers[-1] < 1.0
    few = standing(full[:8], full[:8], MARGIN, ALPHA, 200).power
    assert few < powers[-1]


def test_the_sequence_stops_at_the_first_failure():
    table = Table({"slow": 0.0, "middle": 0.4, "fast": 0.0})
    proofs = fixed_sequence(["slow", "middle", "fast"], table.play, LOOKS, LEVELS, MARGIN)
    assert [(proof.name, proof.passed) for proof in proofs] == [("slow", True), ("middle", False)]
    assert "fast" not in {name for name, _ in table.played}  # nothing is rolled out for what cannot be proven
    assert proofs[1].last.verdict.result == "refuted" and proofs[1].last.n == LOOKS[0]


def test_a_clear_case_needs_few_looks_and_every_verdict_says_its_level():
    (proof,) = fixed_sequence(["slow"], Table({"slow": 0.0}).play, LOOKS, LEVELS, MARGIN)
    assert proof.passed and proof.last.n < LOOKS[-1]
    assert [look.verdict.alpha for look in proof.looks] == LEVELS[: len(proof.looks)]
    assert proof.last.n >= least_pairs(MARGIN, proof.last.verdict.alpha)


def test_a_candidate_as_bad_as_the_margin_is_rarely_proven():
    """One-sided level .05: 60 tries pass 8 times at most with probability .997."""
    passed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        full = np.full(200, 1.0)
        own = np.where(rng.random(200) < MARGIN, 0.0, full)

        def play(name, n, own=own, full=full):
            return own[:n].tolist(), full[:n].tolist()

        passed += fixed_sequence(["it"], play, LOOKS, LEVELS, MARGIN)[0].passed
    assert passed <= 8


def test_another_sequence_is_proven_on_seeds_of_its_own(tmp_path):
    first = certification_block(tmp_path, {"order": ["a"], "margin": 0.05}, 400_000)
    other = certification_block(tmp_path, {"order": ["a"], "margin": 0.1}, 400_000)
    again = certification_block(tmp_path, {"order": ["a"], "margin": 0.05}, 400_000)
    assert first == again == (tmp_path / "400000", 400_000, 0)
    assert other == (tmp_path / "410000", 410_000, 1)
    (tmp_path / "400000" / "plan.json").write_text("{")
    with pytest.raises(ConfigError, match="plan.json is damaged"):
        certification_block(tmp_path, {"order": ["a"], "margin": 0.05}, 400_000)


def test_what_was_measured_of_something_else_is_not_taken(tmp_path):
    path = tmp_path / "measured.json"
    remember(path, {"runtime": "planned", "seeds": (1, 2)}, "times", {"a": 3.0})
    remember(path, {"states": 4}, "screen", {"a": 0.1})
    assert recall(path, {"runtime": "planned", "seeds": (1, 2)}, "times") == {"a": 3.0}
    assert recall(path, {"runtime": "compiled", "seeds": (1, 2)}, "times") is None
    assert recall(path, {"states": 4}, "screen") == {"a": 0.1}
