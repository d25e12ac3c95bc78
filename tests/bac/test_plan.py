"""The program of a schedule: executed on random numbers it must do what the schedule says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.blocks import decoder_blocks, encoder_blocks
from bac.plan import Plan, Segment
from bac.schedule import Schedule

examples = settings(max_examples=200)


@st.composite
def schedules(draw):
    n_layer, steps = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    blocks = draw(st.sampled_from([decoder_blocks, encoder_blocks]))(n_layer)
    density = draw(st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.9, 1.0]))
    updates = np.random.default_rng(draw(st.integers(0, 10**6))).random((steps, len(blocks))) < density
    updates[0] = True
    return Schedule(updates, blocks)


def by_definition(schedule, outputs):
    """Residual stream seen by each computing block, and at the end of each step (paper, section 3.1)."""
    cache, streams = {}, []
    for k, row in enumerate(schedule.updates):
        x = 0
        for block, update in enumerate(row):
            if update:
                streams.append((k, block, x))
                cache[block] = outputs[k, block]
            x += cache[block]
        streams.append((k, None, x))
    return streams


def by_plan(plan, outputs):
    """The same by executing the program. A missing or superfluous stored value or sum is an error."""
    stored, sums, unused, streams = {}, {}, set(), []
    for k, step in enumerate(plan.steps):
        x = 0
        for segment in step:
            run = (segment.start, segment.stop)
            if segment.memo:
                total = sums[run] if segment.keep else sums.pop(run)
                unused -= set(range(*run))
            else:
                total = sum(stored[block] for block in range(*run))
                unused -= set(range(*run))
                if segment.keep:
                    assert run not in sums
                    sums[run] = total
            x += total
            streams.append((k, segment.block, x))
            if segment.block is not None:
                assert segment.block not in unused, "stored, but computed again before it was used"
                stored.pop(segment.block, None)
                if segment.store:
                    stored[segment.block] = outputs[k, segment.block]
                    unused.add(segment.block)
                x += outputs[k, segment.block]
    assert not sums, "a sum was kept that nothing uses"
    assert not unused, "an output was stored that nothing uses"
    return streams


@examples
@given(schedules(), st.integers(0, 10**6))
def test_execution(schedule, seed):
    outputs = np.random.default_rng(seed).integers(1, 2**40, schedule.updates.shape).astype(object)  # exact sums
    assert by_plan(Plan.of(schedule), outputs) == by_definition(schedule, outputs)


@examples
@given(schedules())
def test_form(schedule):
    """Segments cover all blocks in order; exactly the scheduled blocks compute; the last segment computes nothing."""
    plan = Plan.of(schedule)
    assert plan.blocks == schedule.blocks and len(plan.steps) == schedule.steps
    assert plan.caches == (schedule.update_count < schedule.updates.size)
    for k, step in enumerate(plan.steps):
        assert [s.block for s in step[:-1]] == np.flatnonzero(schedule.updates[k]).tolist() and step[-1].block is None
        position = 0
        for segment in step:
            assert segment.start == position <= segment.stop
            assert segment.block in (None, segment.stop)
            position = segment.stop + 1
        assert step[-1].stop == len(schedule.blocks)


def test_steps_without_updates_cost_one_addition():
    blocks = decoder_blocks(2)
    plan = Plan.of(Schedule.from_steps({name: [0, 5] for name in blocks}, 9))
    assert plan.steps[1] == (Segment(0, 6, keep=True),)
    assert plan.steps[2:5] == ((Segment(0, 6, memo=True, keep=True),),) * 2 + ((Segment(0, 6, memo=True),),)
    assert [s.store for s in plan.steps[0]] == [True] * 6 + [False]
    assert plan.steps[6] == (Segment(0, 6, keep=True),), "the blocks have updated: summed anew"


def test_full_policy_stores_nothing():
    plan = Plan.of(Schedule.full(decoder_blocks(2), 5))
    assert not plan.caches
    assert not any(s.store or s.keep or s.memo or (s.start < s.stop) for step in plan.steps for s in step)
