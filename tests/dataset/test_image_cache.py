"""Images laid out on disk once: the same arrays whatever happens meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robomimic_data import write_demonstrations

from diffusion_policy.dataset import image_cache
from diffusion_policy.dataset.image_cache import cached_images
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.sequence_dataset import Windows

SHAPES = {"front": (4, 5, 3), "wrist": (3, 3, 3)}
LENGTHS = [3, 1, 4, 2]
SOURCE = {"name": "image.hdf5", "bytes": 12}


def episode(index: int, name: str) -> np.ndarray:
    return np.random.default_rng([index, len(name)]).integers(0, 256, (LENGTHS[index], *SHAPES[name]), dtype=np.uint8)


def expected(name: str) -> np.ndarray:
    return np.concatenate([episode(index, name) for index in range(len(LENGTHS))])


class Interrupted(Exception):
    pass


class Reader:
    """Reads episodes, counts them, and is interrupted before reading number `stop`."""

    def __init__(self, stop=None):
        self.stop, self.read = stop, []

    def __call__(self, index, name):
        if len(self.read) == self.stop:
            raise Interrupted
        self.read.append((index, name))
        return episode(index, name)


def make(folder, reader=None, source=SOURCE, shapes=SHAPES):
    return cached_images(folder, source, shapes, LENGTHS, reader or Reader())


def assert_right(images):
    assert set(images) == set(SHAPES)
    for name, values in images.items():
        assert isinstance(values, np.memmap) and values.dtype == np.uint8
        np.testing.assert_array_equal(values, expected(name))


def test_images_are_written_once_and_then_mapped(tmp_path):
    assert_right(make(tmp_path / "c"))
    again = Reader()
    assert_right(make(tmp_path / "c", again))
    assert again.read == []
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["cache.json", "front.npy", "wrist.npy"]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 7), max_size=4))
def test_interruptions_change_nothing_and_finished_episodes_are_not_read_again(tmp_path_factory, stops):
    folder = tmp_path_factory.mktemp("cache") / "c"
    done = 0
    for stop in stops:
        reader = Reader(stop)
        try:
            make(folder, reader)
        except Interrupted:
            assert not folder.exists()
        assert all(index >= done for index, _ in reader.read)
        done += len(reader.read) // len(SHAPES)
    last = Reader()
    assert_right(make(folder, last))
    assert len(last.read) == len(SHAPES) * (len(LENGTHS) - min(done, len(LENGTHS)))


def test_a_killed_process_leaves_what_the_next_one_goes_on_with(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die_in_episode_2, args=(tmp_path / "c",))
    process.start()
    process.join()
    assert process.exitcode == 9 and not (tmp_path / "c").exists()
    reader = Reader()
    assert_right(make(tmp_path / "c", reader))
    assert {index for index, _ in reader.read} == {2, 3}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def _die_in_episode_2(folder):
    def read(index, name):
        if (index, name) == (2, "wrist"):
            os._exit(9)
        return episode(index, name)

    make(folder, read)


def _write_slowly(folder, started):
    def read(index, name):
        started.set()
        return episode(index, name)

    make(folder, read)


def test_processes_that_need_the_same_cache_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write_slowly, args=(tmp_path / "c", context.Event())) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    unused = Reader()
    assert_right(make(tmp_path / "c", unused))
    assert unused.read == [] and [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("source", [{**SOURCE, "bytes": 13}, {}])
def test_another_source_is_noticed_and_said(tmp_path, source, capfd):
    make(tmp_path / "c", source=source)
    reader = Reader()
    assert_right(make(tmp_path / "c", reader))
    assert len(reader.read) == len(SHAPES) * len(LENGTHS)
    assert "belongs to another or a changed data file: writing it anew" in capfd.readouterr().err


def test_what_another_source_left_unfinished_is_not_used(tmp_path):
    with pytest.raises(Interrupted):
        make(tmp_path / "c", Reader(5), source={"name": "other.hdf5"})
    reader = Reader()
    assert_right(make(tmp_path / "c", reader))
    assert reader.read[0] == (0, "front")


@pytest.mark.parametrize("damage", ["truncated", "emptied", "removed", "description"])
def test_a_damaged_cache_is_written_anew(tmp_path, damage, capfd):
    make(tmp_path / "c")
    path = tmp_path / "c" / ("cache.json" if damage == "description" else "wrist.npy")
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "emptied" else path.read_bytes()[:-10])
    assert_right(make(tmp_path / "c"))
    assert "writing it anew" in capfd.readouterr().err


def test_an_unfinished_cache_that_was_tampered_with_is_not_used(tmp_path):
    with pytest.raises(Interrupted):
        make(tmp_path / "c", Reader(5))
    (tmp_path / "c.partial" / "front.npy").write_bytes(b"")
    assert_right(make(tmp_path / "c"))


@pytest.mark.parametrize("where", ["finished", "unfinished"])
def test_one_changed_pixel_is_found(tmp_path, where, capfd):
    if where == "finished":
        make(tmp_path / "c")
    else:
        with pytest.raises(Interrupted):
            make(tmp_path / "c", Reader(5))
    path = (tmp_path / ("c" if where == "finished" else "c.partial")) / "front.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert_right(make(tmp_path / "c"))
    assert ("front.npy has another checksum): writing it anew" in capfd.readouterr().err) == (where == "finished")


def test_a_copy_is_compared_once(tmp_path):
    make(tmp_path / "c")
    shutil.copytree(tmp_path / "c", tmp_path / "copy", copy_function=shutil.copyfile)
    before = (tmp_path / "copy" / "cache.json").read_text()
    unused = Reader()
    assert_right(make(tmp_path / "copy", unused))
    after = (tmp_path / "copy" / "cache.json").read_text()
    assert_right(make(tmp_path / "copy", unused))
    assert unused.read == [] and before != after == (tmp_path / "copy" / "cache.json").read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", "5", "[" * 100_000, '{"files": 5}'])
@pytest.mark.parametrize("file", ["cache.json", "progress.json"])
def test_damaged_descriptions_are_written_anew(tmp_path, file, content):
    if file == "cache.json":
        make(tmp_path / "c")
    else:
        with pytest.raises(Interrupted):
            make(tmp_path / "c", Reader(5))
    (tmp_path / ("c" if file == "cache.json" else "c.partial") / file).write_text(content)
    assert_right(make(tmp_path / "c"))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot write the cache of images .*task.dataset.cache_dir=<folder>"):
        make(tmp_path / "file" / "c")


def test_no_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: full)
    reader = Reader()
    with pytest.raises(DatasetError, match="needs 0.0 GB .*task.dataset.cache_dir=<folder>"):
        make(tmp_path / "c", reader)
    assert reader.read == []


def test_what_is_no_image_of_the_shape_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"'front' of episode 0 are float64 \[3, 4, 5, 3\]"):
        make(tmp_path / "c", lambda index, name: episode(index, name).astype(np.float64))
    assert not (tmp_path / "c").exists()


# With a data file


def test_a_changed_data_file_is_noticed(tmp_path, capfd):
    pytest.importorskip("h5py")
    from diffusion_policy.dataset.robomimic_dataset import load_robomimic_image

    path = tmp_path / "image_abs.hdf5"
    for seed in (0, 1):
        demos = write_demonstrations(path, image=True, lengths=(8, 7), seed=seed)
        os.utime(path, ns=(0, 10**18 + seed))  # a coarse clock would not tell the two apart
        train, _ = load_robomimic_image(path, "can", Windows(6, val_ratio=0), cache_dir=tmp_path / "elsewhere")
        recorded = np.concatenate([demo["obs/agentview_image"] for demo in demos])
        np.testing.assert_array_equal(train.images["agentview_image"], recorded)
    assert capfd.readouterr().err.count("changed data file") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "image_abs.hdf5"]
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["image_abs.hdf5.cache"]
