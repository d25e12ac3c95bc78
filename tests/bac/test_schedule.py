"""Schedules: what is not one is refused, and what one says of itself."""

import copy
import pickle

import numpy as np
import pytest

from bac.blocks import decoder_blocks, encoder_blocks, parse
from bac.schedule import Provenance, Schedule, ScheduleError
from tests.bac.example_schedules import BLOCKS, example, known_provenance

# ---- validation ------------------------------------------------------------------------------------------------------


def test_schedule_is_immutable_and_owns_its_array():
    updates = np.ones((4, 6), bool)
    schedule = Schedule(updates, BLOCKS)
    updates[2] = False
    assert schedule == Schedule.full(BLOCKS, 4)
    with pytest.raises(ValueError):
        schedule.updates[1, 0] = False
    with pytest.raises(AttributeError):
        schedule.blocks = ()


@pytest.mark.parametrize(
    ("updates", "blocks", "message"),
    [
        (np.ones((4, 6), int), BLOCKS, "bool array .* use Schedule.from_steps"),
        (np.ones(6, bool), BLOCKS, r"bool array \[steps, blocks\]"),
        (np.ones((4, 5), bool), BLOCKS, "6 blocks need"),
        (np.ones((0, 6), bool), BLOCKS, "steps >= 1"),
        (np.ones((4, 6), bool), BLOCKS[::-1], "execution order: position 0"),
        (np.ones((4, 2), bool), BLOCKS[:1] * 2, "more than once"),
        (np.ones((4, 1), bool), ("head",), "not a block name"),
        (np.ones((4, 0), bool), (), "no blocks"),
        (np.ones((4, 1), bool), "decoder.layers.0.sa", "blocks must be a list"),
        (np.arange(24).reshape(4, 6) > 2, BLOCKS, "update at step 0.* decoder.layers.0.sa, decoder.layers.0.ca"),
    ],
)
def test_invalid_schedules_are_refused(updates, blocks, message):
    with pytest.raises(ScheduleError, match=message):
        Schedule(updates, blocks)


@pytest.mark.parametrize(
    ("steps", "message"),
    [([0, 5], r"lie in 0..4, got 5"), ([0, -1], "got -1"), ([0, 1, 1], "not repeat"), ([1], "step 0"),
     ([0, 1.0], "integers, got 1.0"), ([True], "integers, got True"), ("0", "must be a list"), (0, "must be a list")],
)  # fmt: skip
def test_invalid_steps_are_refused(steps, message):
    with pytest.raises(ScheduleError, match=message):
        Schedule.from_steps({"decoder.layers.0.sa": steps}, 5)


@pytest.mark.parametrize("steps", [0, -3, 10**9, 2.0, "5"])
def test_invalid_step_counts_are_refused(steps):
    with pytest.raises(ScheduleError, match="number of denoising steps"):
        Schedule.full(BLOCKS, steps)


def test_provenance_is_checked():
    with pytest.raises(ScheduleError, match="12 steps, but the provenance names a sampler with 100"):
        example(Provenance(sampler_steps=100))
    with pytest.raises(ScheduleError, match="'ema' or 'raw'"):
        Provenance(weights="average")
    with pytest.raises(ScheduleError, match="JSON"):
        Provenance(extras={"array": np.zeros(2)})
    with pytest.raises(ScheduleError, match="JSON"):
        Provenance(extras={"x": float("nan")})
    with pytest.raises(ScheduleError, match="'budget' must hold integers"):
        Provenance(budget=2.5)
    with pytest.raises(ScheduleError, match="'method' must hold text"):
        Provenance(method=3)
    extras = {"list": [1]}
    provenance = Provenance(budget=np.int64(3), extras=extras)
    extras["list"].append(2)
    assert provenance.extras == {"list": [1]} and type(provenance.budget) is int
    assert hash(provenance) == hash(Provenance(budget=3, extras={"list": [1]}))


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_counts_and_steps():
    schedule = example()
    assert (schedule.steps, schedule.update_count) == (12, 12)
    assert schedule.active_steps == (0, 2, 3, 4, 5, 6, 7)
    assert schedule.updates_per_block == dict.fromkeys(BLOCKS, 2)
    assert schedule.steps_of("decoder.layers.1.sa") == (0, 5)
    with pytest.raises(ScheduleError, match="not in this schedule of 6 blocks"):
        schedule.steps_of("decoder.layers.9.sa")


def test_from_steps_orders_blocks_and_steps():
    shuffled = {name: [2 + i, 0] for i, name in reversed(list(enumerate(BLOCKS)))}
    assert Schedule.from_steps(shuffled, 12) == example()


def test_forced_refresh_updates_every_block_and_is_recorded():
    schedule = example().with_refresh([11, 2])
    assert schedule.updates[[2, 11]].all()
    assert schedule.update_count == 12 + 6 + 5  # one block had step 2 already
    assert schedule.provenance.forced_refresh == (2, 11)
    assert example().with_refresh(()) == example()
    with pytest.raises(ScheduleError, match="forced refresh steps must lie in 0..11"):
        example().with_refresh([12])


def test_macs_are_the_sum_over_updates():
    costs = {name: 10**i for i, name in enumerate(BLOCKS)}
    assert example().macs(costs) == 2 * 111_111
    assert example().macs(costs, per_step=3, per_chunk=5) == 2 * 111_111 + 12 * 3 + 5
    # The paper's Push-T model (8 layers, 16 tokens) without caching, 2 FLOPs per MAC: 24.7 GFLOP.
    per_kind = {"sa": 4_325_000, "ca": 2_515_000, "ffn": 8_389_000}
    blocks = decoder_blocks(8)
    full = Schedule.full(blocks, 100).macs({name: per_kind[parse(name).kind] for name in blocks}, per_step=1_599_000)
    assert 2 * full == pytest.approx(24.69e9, rel=1e-3)
    with pytest.raises(ScheduleError, match="only in the schedule: decoder.layers.0.sa"):
        example().macs(dict.fromkeys(BLOCKS[1:], 1))
    with pytest.raises(ScheduleError, match="only in costs: head"):
        example().macs({**costs, "head": 1})


def test_check_fits_names_both_sides():
    schedule = example(known_provenance())
    schedule.check_fits(BLOCKS, 12)
    schedule.check_fits(list(BLOCKS), 12, "abc")
    example().check_fits(BLOCKS, 12, "abc")  # unknown checkpoint: nothing to compare
    with pytest.raises(ScheduleError, match=r"6 blocks .*the model 9 blocks .*only in the model: decoder.layers.2.sa"):
        schedule.check_fits(decoder_blocks(3), 12)
    with pytest.raises(ScheduleError, match=r"only in the schedule: decoder.*and 3 more; only in the model: encoder"):
        schedule.check_fits(encoder_blocks(3), 12)
    with pytest.raises(ScheduleError, match="no blocks"):
        schedule.check_fits([], 12)
    with pytest.raises(ScheduleError, match="for 12 denoising steps, the sampler takes 16"):
        schedule.check_fits(BLOCKS, 16)
    with pytest.raises(ScheduleError, match="checkpoint abc, .* checkpoint xyz"):
        schedule.check_fits(BLOCKS, 12, "xyz")


def test_equality_is_about_decisions():
    plain, documented = example(), example(known_provenance())
    assert plain == documented and hash(plain) == hash(documented) and plain.digest == documented.digest
    assert plain != Schedule.full(BLOCKS, 12) and plain.digest != Schedule.full(BLOCKS, 12).digest
    assert Schedule.full(BLOCKS, 4) != Schedule.full(BLOCKS, 6)
    assert plain != "schedule"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_stay_read_only(copied):
    schedule = copied(example(known_provenance()))
    assert schedule == example() and schedule.provenance == known_provenance()
    assert not schedule.updates.flags.writeable


# ---- printing --------------------------------------------------------------------------------------------------------


def test_grid_shows_every_update():
    grid = str(example(Provenance("uniform", budget=2))).splitlines()
    assert grid[0] == "uniform, S=2"
    assert grid[1] == "12 of 72 block updates (16.7%), 7 of 12 steps active"
    assert grid[2] == "decoder 0         10"
    assert grid[3] == "0.sa    #.#......... 2"
    assert grid[-1] == "1.ffn   #......#.... 2"


@pytest.mark.parametrize("steps", [1, 9, 100, 101, 1000])
def test_grid_fits_120_columns(steps):
    lines = str(Schedule.full(decoder_blocks(12), steps)).splitlines()
    assert max(map(len, lines)) <= 120
    assert len(lines) == 3 + 36


def test_repr_is_one_line():
    assert repr(example(known_provenance())) == (
        "Schedule(bac, S=2, k=1, cosine, cached_to_skipped; 12 steps x 6 blocks, 12 updates)"
    )
