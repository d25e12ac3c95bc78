"""cache=uniform by the distance of its updates, as cache_mode=threshold of the released code."""

from __future__ import annotations

import pytest

from bac_workbench.settings.methods import named_cache, parse_method
from diffusion_policy.common.config import ConfigError
from tests.experiments.composed_settings import checked

BLOCKS = [f"decoder.layers.{layer}.{kind}" for layer in (0, 1) for kind in ("sa", "ca", "ffn")]


def cache_of(*overrides: str):
    from bac_workbench.settings import check

    return check(checked("eval", *overrides), "eval", [*overrides]).chosen_cache


@pytest.mark.parametrize("interval", [1, 3, 14, 50, 100])
def test_an_interval_updates_every_block_at_its_multiples(interval):
    cache = cache_of("cache=uniform", f"cache.interval={interval}")
    cache.check(BLOCKS, 100)
    expected = [step for step in range(100) if step % interval == 0]
    assert cache.schedule(BLOCKS, 100).update_steps == dict.fromkeys(BLOCKS, expected)
    assert cache.label == f"uniform_every{interval}" and parse_method(cache.label).cache == cache


def test_without_both_it_has_ten_updates_under_the_usual_name():
    cache = cache_of("cache=uniform")
    assert cache.label == "uniform_s10" == named_cache("uniform", budget=10).label
    assert cache.schedule(BLOCKS, 100) == cache_of("cache=uniform", "cache.budget=10").schedule(BLOCKS, 100)


def test_budget_and_interval_exclude_each_other():
    with pytest.raises(ConfigError, match="cache.interval=5: with cache.budget=7: .*leave one of them out"):
        cache_of("cache=uniform", "cache.budget=7", "cache.interval=5")
    with pytest.raises(ConfigError, match="use 1 to 16"):
        cache_of("cache=uniform", "cache.interval=17", "sampler.type=ddim", "sampler.steps=16")
    with pytest.raises(ConfigError, match="cache.interval=101 is not possible: use 1 to 100"):
        cache_of("cache=uniform", "cache.interval=101").check(BLOCKS, 100)
    with pytest.raises(ConfigError, match="cache.interval=0"):
        cache_of("cache=uniform", "cache.interval=0")


def test_other_methods_still_need_their_budget():
    with pytest.raises(ConfigError, match="cache.budget=null: .*from 1"):
        cache_of("cache=bac", "cache.budget=null")
