"""The glossary has a line for the words that configuration, tables and pages use."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
WORDS = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", TEXT, re.MULTILINE)[1:]


def test_words_are_in_order_and_once():
    assert sorted(WORDS, key=str.casefold) == WORDS and len(set(WORDS)) == len(WORDS) > 40


def test_words_of_the_settings_are_explained():
    settings = {"budget", "cache", "metric", "objective", "top_k", "sampler", "runtime", "precision", "profile", "EMA"}
    assert settings | {"min_scale", "auxiliary_targets", "n_crops", "horizon", "observation steps"} <= set(WORDS)


def test_words_of_the_tables_are_explained():
    columns = {
        "block update",
        "GFLOP per chunk",
        "paired difference",
        "speed-up",
        "success rate",
        "score",
        "p1, p2, ...",
    }
    assert columns | {"full policy", "plain policy", "BAC", "ACS", "BUA", "Uniform caching"} <= set(WORDS)
