"""docs/results/latency.md: a method's time decides which episodes its score is of."""

from __future__ import annotations

import math

from docs.generate.latency_page import METHODS, clock_of, late_cells, latency_page, of_method, places, stored


def test_scores_are_of_episodes_that_are_as_late_as_the_time_says():
    tasks = stored()
    assert tasks
    for results in tasks:
        rate = next(row["clock"]["control_hz"] for row in results.rows if clock_of(row))
        for place in places(results.task):
            for key in METHODS:
                time, late, score = late_cells(results, key, place, rate)
                timed = place.timed.row(key, place.runtime)
                if timed is None:
                    assert (time, late, score) == ("-", "-", "-")
                    continue
                assert int(late) == math.ceil(timed["ms_p50"] * rate / 1000) >= 1
                there = [row for row in of_method(results, key) if clock_of(row) == ("async", int(late))]
                assert score == "-" and not there or score.startswith(f"{there[0]['mean_score']:.3f} ")


def test_the_page_names_the_score_of_a_world_that_waits():
    page = latency_page()
    for results in stored():
        waits = next(row for row in of_method(results, "full") if clock_of(row) is None)
        assert f"a world that waits scores {waits['mean_score']:.3f}" in page.replace("\n", " ")
