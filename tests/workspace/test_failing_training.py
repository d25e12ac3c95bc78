"""A training that diverges, whose state is damaged, or whose folder is full, gone or taken."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import LOCK_FILE, LockedError, locked
from tests.conftest import ROOT
from tests.workspace.small_training import ENV, SMALL, logged_steps, script


@pytest.mark.parametrize("every", [0, 1])
def test_nothing_that_is_not_finite_is_ever_saved(train, every):
    workspace = train(
        f"training.log_every={every}",
        "training.learning_rate=1e30",
        "training.save_every=1",
        "training.checkpoint_every=1",
        "training.warmup_steps=0",
    )
    with pytest.raises(ConfigError, match="likeliest cause is training.learning_rate") as error:
        workspace.run()
    if workspace.state_file.exists():
        assert f"last state whose numbers are finite is {workspace.state_file}" in str(error.value)
        assert all(
            torch.isfinite(value).all() for name, value in load_file(workspace.state_file).items() if "mask" not in name
        )
    else:
        assert "No state has been saved" in str(error.value)
    for folder in (workspace.output_dir / "checkpoints").glob("*"):
        load_policy(folder)


def test_a_loss_that_is_nan_from_the_first_step_is_no_matter_of_the_learning_rate(train):
    workspace = train()
    workspace.train_set.fields["action"][:] = torch.nan
    with pytest.raises(
        ConfigError, match="the loss is nan at step 1.*before anything was learned.*No state has been saved"
    ):
        workspace.run()


def test_a_state_that_holds_nan_is_refused(train):
    first = train("training.max_steps=2")
    first.run()
    with safe_open(first.state_file, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(first.state_file)
    tensors["model.policy.model.head.bias"][0] = torch.nan
    save_file(tensors, first.state_file, metadata=metadata)
    with pytest.raises(ConfigError, match="holds NaN in model.policy.model.head.bias"):
        train().run()


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:1000],
        lambda b: b"",
        lambda b: b"\xff" * 100,
        lambda b: b.replace(b'\\"step\\":', b'\\"stop\\":', 1),
    ],
)
def test_a_damaged_state_is_named_before_the_data_are_read(train, damage):
    first = train("training.max_steps=2")
    first.run()
    first.state_file.write_bytes(damage(first.state_file.read_bytes()))
    with pytest.raises(ConfigError, match="latest.safetensors cannot be read.*resume=false"):
        train("task.dataset.zarr_path=nowhere.zarr")


def test_a_full_disk_leaves_the_state_of_before(train):
    first = train("training.max_steps=2")
    first.run()
    before = first.state_file.read_bytes()
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2); sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, 'scripts'); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    arguments = [*SMALL, f"output_dir={first.output_dir}", f"task.dataset.zarr_path={first.cfg.task.dataset.zarr_path}"]
    result = subprocess.run(
        [sys.executable, "-c", code, *script([*arguments, "training.checkpoint_every=0"])[1:]],
        cwd=ROOT,
        env=ENV,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "cannot be written" in result.stderr and "the state of before is still there" in result.stderr, result.stderr
    assert first.state_file.read_bytes() == before
    train().run()
    assert logged_steps(first.output_dir) == list(range(1, 9))


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_vanishes_ends_the_training(train, replaced):
    workspace = train()
    update, folder = workspace.update, workspace.output_dir

    def removing(*args):
        if workspace.step == 3:
            shutil.rmtree(folder)
            if replaced:
                folder.mkdir()
        return update(*args)

    workspace.update = removing
    with pytest.raises(ConfigError, match="was removed, or replaced"):
        workspace.run()
    assert not (folder / "latest.safetensors").exists()


def test_two_trainings_do_not_share_a_folder(train, tmp_path):
    code = (
        "import sys, time; from diffusion_policy.common.lock import locked\n"
        "with locked(sys.argv[1], 'training of x'): print('.', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        with pytest.raises(LockedError, match=f"training of x, process {process.pid}"):
            train("task.dataset.zarr_path=nowhere.zarr")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with locked(tmp_path / "out", "a training that runs"):
        assert (tmp_path / "out" / LOCK_FILE).exists()
