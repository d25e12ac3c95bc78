"""Stored schedules: read as they were written, or refused by name, whatever the file holds."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.blocks import decoder_blocks, encoder_blocks
from bac.schedule import Schedule, ScheduleError
from tests.bac.example_schedules import BLOCKS, example, known_provenance

DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=50, database=None)


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


# ---- hostile files ---------------------------------------------------------------------------------------------------


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
