"""S-ACS: the cheapest schedule within a budget, whatever costs and prices are."""

import itertools

import numpy as np
import pytest

from bac.blocks import decoder_blocks
from bac.holding import HoldingCosts
from bac.provenance import Provenance, ScheduleError
from bac.sacs import predicted_cost, sacs, smallest_budget
from bac.schedule import Schedule
from bac.uniform import uniform

BLOCKS = decoder_blocks(1)
PRICES = {"decoder.layers.0.sa": 3, "decoder.layers.0.ca": 2, "decoder.layers.0.ffn": 7}


def random_costs(steps=5, seed=0, blocks=BLOCKS):
    """Any numbers: a longer interval may cost less than a part of it, as squared sums do."""
    generator = np.random.default_rng(seed)
    hold = np.triu(generator.random((len(blocks), steps, steps)) ** 3, 1)
    extrapolate = np.triu(generator.random((len(blocks), steps, steps, steps)) ** 3, 1)
    return HoldingCosts(blocks, hold, extrapolate)


def price_of(schedule, prices, per_step=0):
    return sum(prices[name] * count for name, count in schedule.updates_per_block.items()) + schedule.steps * per_step


def every_schedule(steps, reuse):
    later = list(itertools.product([False, True], repeat=steps - 1))
    for columns in itertools.product(later, repeat=len(BLOCKS)):
        yield Schedule(np.array([[True, *column] for column in columns]).T, BLOCKS, reuse=reuse)


@pytest.mark.parametrize("reuse", ["hold", "extrapolate"])
def test_no_schedule_within_the_budget_is_better(reuse):
    steps = 4
    costs = random_costs(steps)
    ranked = [(price_of(s, PRICES, 1), predicted_cost(s, costs)) for s in every_schedule(steps, reuse)]
    for budget in range(smallest_budget(PRICES, steps, 1), 4 * 12 + 6):
        best = min(cost for price, cost in ranked if price <= budget)
        found = sacs(costs, PRICES, budget, per_step=1, reuse=reuse)
        assert price_of(found, PRICES, 1) <= budget and found.reuse == reuse
        assert predicted_cost(found, costs) == pytest.approx(best, rel=1e-12, abs=1e-15)
        assert found.provenance.extras["predicted_cost"] == pytest.approx(best, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
def test_more_budget_never_costs_more_and_is_never_exceeded(seed):
    costs = random_costs(20, seed, decoder_blocks(3))
    prices = {name: int(price) for name, price in zip(costs.blocks, np.random.default_rng(seed).integers(1, 50, 9))}
    last = float("inf")
    for budget in np.linspace(smallest_budget(prices, 20, 4), 20 * (sum(prices.values()) + 4), 25).astype(int):
        schedule = sacs(costs, prices, int(budget), per_step=4)
        assert price_of(schedule, prices, 4) <= budget
        cost = predicted_cost(schedule, costs)
        assert cost <= last
        last = cost
    assert last == 0  # everything computes


def test_the_block_that_matters_gets_the_updates_where_it_matters():
    costs = HoldingCosts(BLOCKS, np.triu(np.full((3, 30, 30), 1e-9), 1))
    length = np.maximum(np.arange(30) - np.arange(30)[:, None], 0.0)
    costs.hold[1] = length**2 * (np.arange(30) >= 20)  # holding it into the last ten steps is what counts
    schedule = sacs(costs, PRICES, smallest_budget(PRICES, 30) + 9 * PRICES[BLOCKS[1]])
    assert list(schedule.updates_per_block.values()) == [1, 10, 1]
    assert sum(step >= 19 for step in schedule.steps_of(BLOCKS[1])) == 9


def test_at_a_uniform_schedules_price_it_costs_no_more():
    costs = random_costs(40, 3, decoder_blocks(4))
    prices = dict.fromkeys(costs.blocks, 5)
    plain = uniform(costs.blocks, 40, 8)
    better = sacs(costs, prices, price_of(plain, prices))
    assert predicted_cost(better, costs) < predicted_cost(plain, costs)


def test_free_updates_are_not_needed_to_be_spent():
    costs = HoldingCosts(BLOCKS, np.zeros((3, 6, 6)))
    assert sacs(costs, PRICES, 1000).update_count == 3


def test_it_says_what_it_is():
    schedule = sacs(random_costs(), PRICES, 40, provenance=Provenance(checkpoint_hash="ab", extras={"draws": 4}))
    origin = schedule.provenance
    assert (origin.method, origin.checkpoint_hash, origin.extras["draws"]) == ("sacs", "ab", 4)
    assert (schedule.reuse, sacs(random_costs(), PRICES, 40, reuse="extrapolate").reuse) == ("hold", "extrapolate")


def test_what_cannot_be_is_refused_with_what_could():
    costs = random_costs()
    with pytest.raises(ScheduleError, match="does not pay one update of every block, which takes 17: use that or more"):
        sacs(costs, PRICES, 16, per_step=1)
    with pytest.raises(ScheduleError, match="exactly the 3 blocks"):
        sacs(costs, {BLOCKS[0]: 1}, 100)
    with pytest.raises(ScheduleError, match="above 0"):
        sacs(costs, {**PRICES, BLOCKS[0]: 0}, 100)
    with pytest.raises(ScheduleError, match="whole|integers"):
        sacs(costs, {**PRICES, BLOCKS[0]: 0.5}, 100)
    with pytest.raises(ScheduleError, match="unknown reuse 'guess'"):
        sacs(costs, PRICES, 100, reuse="guess")
    with pytest.raises(ScheduleError, match="use reuse=hold"):
        sacs(HoldingCosts(BLOCKS, costs.hold), PRICES, 100, reuse="extrapolate")
