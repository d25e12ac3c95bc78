import copy
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.blocks import decoder_blocks, encoder_blocks, parse
from bac.schedule import Provenance, Schedule, ScheduleError

BLOCKS = decoder_blocks(2)
DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=50, database=None)


def example(provenance=None) -> Schedule:
    steps = {name: [0, 2 + i] for i, name in enumerate(BLOCKS)}
    return Schedule.from_steps(steps, 12, provenance)


def known_provenance() -> Provenance:
    return Provenance(
        method="bac",
        budget=2,
        metric="cosine",
        objective="cached_to_skipped",
        top_k=1,
        repaired=("decoder.layers.0.sa",),
        forced_refresh=(11,),
        checkpoint_hash="abc",
        weights="ema",
        observations=64,
        seeds=(0, 1),
        sampler="ddpm",
        sampler_steps=12,
        extras={"note": ["ü", 1.5, None, {"nested": (1, 2)}]},
    )


# ---- validation ----------------------------------------------------------------------------------------------------


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


# ---- reading -------------------------------------------------------------------------------------------------------


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


def test_forced_refresh_updates_every_block_and_is_noted():
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


# ---- printing ------------------------------------------------------------------------------------------------------


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


# ---- files ---------------------------------------------------------------------------------------------------------


@DETERMINISTIC
@given(st.data(), st.integers(1, 30), st.integers(1, 3), st.sampled_from([decoder_blocks, encoder_blocks]))
def test_json_round_trip(tmp_path_factory, data, steps, layers, stack):
    blocks = stack(layers)
    later = st.sets(st.integers(0, steps - 1))
    schedule = Schedule.from_steps({name: sorted({0} | data.draw(later)) for name in blocks}, steps)
    path = tmp_path_factory.getbasetemp() / "round_trip.json"
    schedule.save(path)
    assert Schedule.load(path) == schedule


def test_stored_file_keeps_provenance_and_is_readable(tmp_path):
    path = tmp_path / "new" / "folder" / "bac.json"
    schedule = example(known_provenance())
    schedule.save(path)
    assert os.listdir(path.parent) == ["bac.json"]  # no partial file is left
    loaded = Schedule.load(path)
    assert loaded == schedule and loaded.provenance == schedule.provenance
    text = path.read_text(encoding="utf-8")
    assert '    "decoder.layers.0.sa": [0, 2],\n' in text  # one line per block
    assert json.loads(text)["steps"] == 12


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "bac.json"
    example().save(path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        Schedule.full(BLOCKS, 12).save(path)
    assert os.listdir(tmp_path) == ["bac.json"]
    assert Schedule.load(path) == example()


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "bac.json"
    example(known_provenance()).save(path)
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        with pytest.raises(ScheduleError, match="bac.json: not complete JSON"):
            Schedule.load(path)


def changed(**changes):
    data = {"format": "bac-schedule", "version": 1, "steps": 3, "provenance": {}}
    return json.dumps({**data, "updates": {"decoder.layers.0.sa": [0]}, **changes}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04\x95", "not complete JSON"),
        (b"[" * 100_000, "not complete JSON"),
        (b"[1, 2]", "not a schedule"),
        (b'{"loss": 0.5}', "not a schedule"),
        (changed(version=2), "version 2, but this code reads version 1"),
        (changed(surprise=1), "keys must be"),
        (changed(updates=[[0]]), "must be JSON objects"),
        (changed(updates={}), "no blocks"),
        (changed(updates={"decoder.layers.0.sa": [0, 3]}), "lie in 0..2, got 3"),
        (changed(updates={"decoder.layers.0.sa": [0, 1.5]}), "integers"),
        (changed(updates={"decoder.layers.0.sa": None}), "must be a list"),
        (changed(updates={"head": [0]}), "not a block name"),
        (changed(steps="3"), "integers"),
        (changed(steps=10**12), "lie in 1..100000"),
        (changed(provenance={"author": "me"}), "unknown provenance fields .* 'extras'"),
        (changed(provenance={"method": None}), "method must be named"),
        (changed().replace(b'"steps": 3', b'"steps": 3, "steps": 3'), "more than once: steps"),
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path, content, message):
    path = tmp_path / "bac.json"
    path.write_bytes(content)
    with pytest.raises(ScheduleError, match=message) as caught:
        Schedule.load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="profile the checkpoint"):
        Schedule.load(tmp_path / "none.json")


# ---- hostile files -------------------------------------------------------------------------------------------------


def updates(text: bytes) -> bytes:
    return changed().replace(b'{"decoder.layers.0.sa": [0]}', text)


def joined(parts) -> bytes:
    return b",".join(part if isinstance(part, bytes) else part.encode() for part in parts)


HOSTILE = {
    "one key among 100,000 twice": (
        lambda: updates(b"{" + joined(f'"k{i % 99_999}":[0]' for i in range(100_000)) + b"}"),
        "more than once: k0;",
    ),
    "20,000 layers": (
        lambda: updates(b"{" + joined(f'"decoder.layers.{i}.sa":[0]' for i in range(20_000)) + b"}"),
        "20000 blocks are more",
    ),
    "4 million steps": (
        lambda: updates(b'{"decoder.layers.0.sa":[' + joined([b"0"] * 3_900_000) + b"]}"),
        "must not repeat, got 3900000 of 3",
    ),
    "100,000 steps of 102 blocks": (
        lambda: changed(steps=100_000, updates={name: [0] for name in decoder_blocks(34)}),
        "100000 steps of 102 blocks are more",
    ),
    "a name of a megabyte": (lambda: updates(b'{"' + b"9" * 10**6 + b'":[0]}'), "not a block name"),
    "a layer of a million digits": (
        lambda: updates(b'{"decoder.layers.' + b"9" * 10**6 + b'.sa":[0]}'),
        "not a block name",
    ),
    "a step of a million digits": (
        lambda: updates(b'{"decoder.layers.0.sa":[' + b"9" * 10**6 + b"]}"),
        "an integer of 1000000 digits",
    ),
    "a step count of 5,000 digits": (
        lambda: changed().replace(b'"steps": 3', b'"steps": ' + b"9" * 5000),
        "an integer of 5000 digits",
    ),
    "a repetition of long names": (
        lambda: updates(b'{"' + b"a" * 10**6 + b'":0,"' + b"a" * 10**6 + b'":0}'),
        "more than once: aaa",
    ),
    "extras nested 900 deep": (
        lambda: changed(provenance={"extras": {"x": 0}}).replace(b'"x": 0', b'"x": ' + b"[" * 900 + b"]" * 900),
        "nested",
    ),
    "extras of megabytes": (lambda: changed(provenance={"extras": {"x": [[0]] * 10**6}}), "extras are .* bytes"),
    "a byte order mark": (lambda: b"\xef\xbb\xbf" + changed(), "not complete JSON .*BOM"),
    "UTF-16": (lambda: changed().decode().encode("utf-16"), "not complete JSON"),
    "NaN": (lambda: changed(provenance={"extras": {"x": float("nan")}}), "NaN where a number should be"),
    "Infinity": (lambda: updates(b'{"decoder.layers.0.sa":[0, -Infinity]}'), "-Infinity where a number should be"),
    "a number beyond all": (
        lambda: changed(provenance={"extras": {"x": 0}}).replace(b'"x": 0', b'"x": 1e999'),
        "1e999, which is out of range",
    ),
    "half a surrogate pair": (lambda: changed(provenance={"method": "\ud800"}), "must hold text"),
    "a negative budget": (lambda: changed(provenance={"budget": -1}), "must not be negative"),
    "a file of 9 MB": (lambda: changed() + b" " * 9_000_000, "is no schedule: 9,000,1.. bytes"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_cost_little_and_are_named(tmp_path, what):
    make, message = HOSTILE[what]
    path = tmp_path / "hostile.json"
    path.write_bytes(make())
    started = time.process_time()
    with pytest.raises(ScheduleError, match=message) as caught:
        Schedule.load(path)
    assert time.process_time() - started < 10
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ScheduleError, match="pipe.json is no schedule: not a regular file"):
        Schedule.load(tmp_path / "pipe.json")


def test_the_largest_schedule_can_be_stored_and_read(tmp_path):
    schedule = Schedule.full(decoder_blocks(333), 1000)
    schedule.save(tmp_path / "large.json")
    assert Schedule.load(tmp_path / "large.json") == schedule
    with pytest.raises(ScheduleError, match="more than a schedule holds"):
        Schedule.full(decoder_blocks(334), 1000)


def test_saving_from_many_threads_leaves_one_whole_file(tmp_path):
    schedules = [Schedule.full(BLOCKS, steps) for steps in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda schedule: [schedule.save(tmp_path / "same.json") for _ in range(20)], schedules))
    assert Schedule.load(tmp_path / "same.json") in schedules and os.listdir(tmp_path) == ["same.json"]


def test_mutated_files_are_read_or_refused(tmp_path):
    """Whatever is done to the bytes: a schedule, or an error that names the file."""
    path = tmp_path / "mutated.json"
    example(known_provenance()).save(path)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    parts = [b"NaN", b"1e999", b"9" * 30, b"null", b"[[", b'"', b"\xff", b"-1", b'{"a":1,"a":2}', b"0.5", b"{}"]
    for _ in range(1000):
        raw = bytearray(whole)
        for _ in range(generator.integers(1, 4)):
            at, end = generator.integers(0, len(raw), 2)
            raw[at : min(end, at + generator.integers(0, 10))] = parts[generator.integers(len(parts))]
        path.write_bytes(bytes(raw))
        try:
            str(Schedule.load(path))
        except ScheduleError as error:
            assert str(path) in str(error)
