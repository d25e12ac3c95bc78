"""Collecting demonstrations: order, parallelism, interruptions, bad input."""

import contextlib
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from toy_demonstrator import ToyDemonstrator

from diffusion_policy.common.lock import LockedError, locked_output
from diffusion_policy.dataset.replay_buffer import DatasetError, ReplayBuffer
from diffusion_policy.dataset.stored_demos import stored_settings, write_replay_buffer
from diffusion_policy.demos.collect import collect
from diffusion_policy.env.offscreen import RenderingError
from tests.conftest import ROOT


def same(a, b):
    np.testing.assert_array_equal(a.episode_ends, b.episode_ends)
    assert set(a.data) == set(b.data)
    for name in a.data:
        np.testing.assert_array_equal(a.data[name], b.data[name])


def running_in_session(session):
    """Processes of a session, without those that have ended and only wait for init."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may end right now
            fields = path.read_text().rpartition(")")[2].split()
            found += [path.parent.name] if int(fields[3]) == session and fields[0] != "Z" else []
    return found


def test_demonstrations_lie_in_the_order_of_their_seeds(tmp_path):
    seen = []
    buffer = collect(ToyDemonstrator, tmp_path / "a.zarr", 6, n_workers=0, on_seed=lambda *args: seen.append(args))
    seeds = [0, 1, 3, 4, 6, 7]  # 2 and 5 fail, so that two more are tried
    assert seen == [(seed, seed in seeds) for seed in range(8)]
    assert [int(buffer.data["action"][buffer.episode(i), 0].mean()) for i in range(6)] == seeds
    assert buffer.data["obs"].dtype == np.float32 and buffer.episode_ends.dtype == np.int64
    assert stored_settings(tmp_path / "a.zarr") == {"n_episodes": 6, "seed_start": 0, "seeds": seeds}
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_workers_change_nothing(tmp_path):
    expected = collect(ToyDemonstrator, tmp_path / "serial.zarr", 6, n_workers=0)
    same(collect(partial(ToyDemonstrator, seconds=0.01), tmp_path / "parallel.zarr", 6, n_workers=2), expected)
    assert stored_settings(tmp_path / "parallel.zarr") == stored_settings(tmp_path / "serial.zarr")


def test_storage_format_2_is_what_every_zarr_reads(tmp_path):
    collect(ToyDemonstrator, tmp_path / "a.zarr", 1, n_workers=0)
    files = {str(path.relative_to(tmp_path / "a.zarr")) for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()}
    assert {".zgroup", "data/.zgroup", "data/obs/.zarray", "meta/episode_ends/.zarray"} <= files
    assert not any(name.endswith("zarr.json") for name in files)
    assert ReplayBuffer.from_zarr(tmp_path / "a.zarr", ("obs", "action")).n_episodes == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    output, parts = tmp_path / "a.zarr", tmp_path / "a.zarr.parts"
    script = Path(__file__).parent / "toy_demonstrator.py"
    process = subprocess.Popen([sys.executable, str(script), str(output), "6", "2"], cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 30
    while len(list(parts.glob("*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    while running_in_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running_in_session(process.pid)  # its workers have gone with it
    finished = {path: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    assert 2 <= len(finished) < 6 and not output.exists()

    rerun = []

    class Counting(ToyDemonstrator):
        def record(self, seed):
            rerun.append(seed)
            assert {path: path.stat().st_mtime_ns for path in finished} == finished
            return super().record(seed)

    buffer = collect(Counting, output, 6, n_workers=0)
    assert not {int(path.stem) for path in finished} & set(rerun)
    same(buffer, collect(ToyDemonstrator, tmp_path / "whole.zarr", 6, n_workers=0))


def test_a_finished_output_is_left_alone(tmp_path):
    first = collect(ToyDemonstrator, tmp_path / "a.zarr", 3, n_workers=0, settings={"speed": 1})
    same(collect(None, tmp_path / "a.zarr", 3, n_workers=0, settings={"speed": 1}), first)
    with pytest.raises(DatasetError, match="speed 1 there, 2 now.*another output"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 3, n_workers=0, settings={"speed": 2})


def test_parts_of_other_demonstrations_are_not_mixed_in(tmp_path):
    with pytest.raises(RuntimeError, match="seed 3") as error:
        collect(partial(ToyDemonstrator, broken="raises"), tmp_path / "a.zarr", 6, n_workers=1, settings={"speed": 1})
    assert "the toy broke" in str(error.value.__cause__)
    with pytest.raises(DatasetError, match="speed 1 there, 2 now"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 6, n_workers=0, settings={"speed": 2})
    same(
        collect(
            ToyDemonstrator, tmp_path / "a.zarr", 8, n_workers=0, settings={"speed": 1}
        ),  # more of the same is fine
        collect(ToyDemonstrator, tmp_path / "b.zarr", 8, n_workers=0),
    )


def test_a_dead_worker_is_explained_and_loses_nothing(tmp_path):
    with pytest.raises(DatasetError, match="worker process died.*goes on from there"):
        collect(partial(ToyDemonstrator, broken="killed"), tmp_path / "a.zarr", 6, n_workers=1)
    assert (tmp_path / "a.zarr.parts" / "000000.npz").exists()
    collect(ToyDemonstrator, tmp_path / "a.zarr", 6, n_workers=0)


def test_an_expert_that_never_succeeds_is_stopped(tmp_path):
    with pytest.raises(DatasetError, match="only 0 of the 20 seeds"):
        collect(partial(ToyDemonstrator, always_fails=True), tmp_path / "a.zarr", 2, n_workers=0)


def test_unrelated_folders_are_not_touched(tmp_path):
    (tmp_path / "a.zarr.parts").mkdir()
    (tmp_path / "a.zarr.parts" / "thesis.tex").touch()
    with pytest.raises(DatasetError, match="not a folder of unfinished demonstrations"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 2, n_workers=0)
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(DatasetError, match="not a replay buffer"):
        collect(ToyDemonstrator, tmp_path / "b.zarr", 2, n_workers=0)
    with pytest.raises(ValueError, match="n_episodes"):
        collect(ToyDemonstrator, tmp_path / "c.zarr", 0)


def test_a_damaged_part_is_named(tmp_path):
    with pytest.raises(RuntimeError):
        collect(partial(ToyDemonstrator, broken="raises"), tmp_path / "a.zarr", 6, n_workers=1)
    part = tmp_path / "a.zarr.parts" / "000001.npz"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DatasetError, match="000001.npz.*Delete it"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 6, n_workers=0)


def test_a_replay_buffer_appears_whole_or_not_at_all(tmp_path):
    uneven = [
        {"obs": np.zeros((3, 2)), "action": np.zeros((3, 1))},
        {"obs": np.zeros((3, 5)), "action": np.zeros((3, 1))},
    ]
    with pytest.raises(ValueError):
        write_replay_buffer(tmp_path / "a.zarr", uneven, {})
    assert not (tmp_path / "a.zarr").exists()


def test_the_second_process_at_one_output_is_refused_and_disturbs_nothing(tmp_path):
    script = Path(__file__).parent / "toy_demonstrator.py"
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "a.zarr"), "4", "0", "0.5"], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("a.zarr.parts/*.npz")) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LockedError, match=f"demonstrations for a.zarr, process {process.pid}"):
            collect(ToyDemonstrator, tmp_path / "a.zarr", 4, n_workers=0)
        assert list(tmp_path.glob("a.zarr.parts/*.npz"))
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    same(collect(None, tmp_path / "a.zarr", 4), collect(ToyDemonstrator, tmp_path / "b.zarr", 4, n_workers=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_killed_at_any_moment_no_demonstration_is_lost_or_doubled(tmp_path):
    expected = collect(ToyDemonstrator, tmp_path / "whole.zarr", 30, n_workers=0)
    script, moments, output = Path(__file__).parent / "toy_demonstrator.py", random.Random(1), tmp_path / "a.zarr"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, str(script), str(output), "30", "0", "0.01"], cwd=ROOT)
        before, deadline = len(list(tmp_path.glob("a.zarr.parts/*"))), time.monotonic() + 30
        while (
            len(list(tmp_path.glob("a.zarr.parts/*"))) <= before
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.4))
        process.kill()
        process.wait()
    same(collect(ToyDemonstrator, output, 30, n_workers=0), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "whole.zarr"]


def test_what_a_call_left_that_was_killed_at_its_very_end_is_cleared(tmp_path):
    with pytest.raises(RuntimeError):
        collect(partial(ToyDemonstrator, broken="raises"), tmp_path / "a.zarr", 2 + 2, n_workers=0)
    parts = tmp_path / "a.zarr.parts"
    write_replay_buffer(
        tmp_path / "a.zarr", [ToyDemonstrator().record(0)], {"n_episodes": 1, "seed_start": 0, "seeds": [0]}
    )
    collect(None, tmp_path / "a.zarr", 1)
    assert not parts.exists()


def test_fewer_demonstrations_than_are_there_are_not_taken_for_all(tmp_path):
    with pytest.raises(DatasetError, match="worker process died"):
        collect(partial(ToyDemonstrator, broken="killed"), tmp_path / "a.zarr", 6, n_workers=1)
    assert len(list((tmp_path / "a.zarr.parts").glob("*.npz"))) >= 2
    with pytest.raises(DatasetError, match="finished demonstrations, more than n_episodes=1: use n_episodes="):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 1, n_workers=0)
    collect(ToyDemonstrator, tmp_path / "a.zarr", 6, n_workers=0)
    with pytest.raises(DatasetError, match="n_episodes 6 there, 3 now"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 3, n_workers=0)


def test_demonstrations_with_an_earlier_name_of_a_setting_are_the_same(tmp_path):
    earlier = {"demonstrator": {"excursion_rate": 0.1}}
    write_replay_buffer(
        tmp_path / "a.zarr", [ToyDemonstrator().record(0)], {"n_episodes": 1, "seed_start": 0, **earlier, "seeds": [0]}
    )
    collect(None, tmp_path / "a.zarr", 1, settings={"demonstrator": {"perturbation_rate": 0.1}})
    with pytest.raises(DatasetError, match="other demonstrations"):
        collect(None, tmp_path / "a.zarr", 1, settings={"demonstrator": {"perturbation_rate": 0.2}})


def test_another_first_seed_and_settings_that_are_gone_are_noticed(tmp_path):
    collect(ToyDemonstrator, tmp_path / "a.zarr", 2, n_workers=0, settings={"noise": 0.1})
    with pytest.raises(DatasetError, match="seed_start 0 there, 7 now"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 2, 7, n_workers=0, settings={"noise": 0.1})
    with pytest.raises(DatasetError, match="noise 0.1 there, None now"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 2, n_workers=0)


@pytest.mark.parametrize(
    "numbers", [{"n_episodes": 0}, {"n_episodes": 2.5}, {"seed_start": -1}, {"n_workers": -1}, {"n_workers": True}]
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_written(tmp_path, numbers):
    with pytest.raises(ValueError, match=f"{next(iter(numbers))}=.*is not possible"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", **{"n_episodes": 2, **numbers})
    assert list(tmp_path.iterdir()) == []


def test_an_action_that_is_not_finite_names_its_seed(tmp_path):
    with pytest.raises(DatasetError, match="seed 3 holds an action that is not finite, in row 2"):
        collect(partial(ToyDemonstrator, broken="nan"), tmp_path / "a.zarr", 6, n_workers=0)


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_demonstrator_that_cannot_be_made_says_why(tmp_path, n_workers):
    with pytest.raises(RenderingError, match="no OpenGL here"):
        collect(partial(ToyDemonstrator, broken="from the start"), tmp_path / "a.zarr", 6, n_workers=n_workers)


def test_workers_start_without_torch():
    modules = (
        "diffusion_policy.demos.collect, diffusion_policy.demos.absolute_actions, diffusion_policy.env_runner.task"
    )
    code = f"import sys; import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_lock_is_of_the_output_and_not_of_its_folder(tmp_path):
    with locked_output(tmp_path / "b.zarr", "another output"):
        collect(ToyDemonstrator, tmp_path / "a.zarr", 1, n_workers=0)
