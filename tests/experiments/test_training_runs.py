"""A training that is killed, goes on, meets other settings, diverges, or loses its folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, safe_open, save_file

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError, register_resolvers
from diffusion_policy.common.lock import LOCK_FILE, LockedError, locked
from diffusion_policy.dataset.stored_demos import write_replay_buffer
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.conftest import ROOT

SMALL = [
    "task=block_pushing",
    "device=cpu",
    "task.policy.model.n_emb=16",
    "task.policy.model.n_layer=1",
    "task.policy.model.n_head=2",
    "task.dataset.effector_noise=0",
    "task.dataset.symmetries=false",
    "task.dataset.windows.val_ratio=0.2",
    "training.precision=fp32",
    "training.batch_size=16",
    "training.warmup_steps=2",
    "training.log_every=1",
    "training.save_every=2",
    "training.checkpoint_every=5",
    "training.validate_every=0",
    "training.max_steps=8",
]


def demonstrations(path, seed=0, episodes=4):
    rng = np.random.default_rng(seed)
    obs = rng.uniform(0.2, 0.4, (episodes, 30, 16)).astype(np.float32)
    write_replay_buffer(path, [{"obs": o, "action": 0.03 * np.sin(15 * o[:, :2])} for o in obs], {})


@pytest.fixture
def arguments(tmp_path):
    demonstrations(tmp_path / "demos.zarr")
    return [*SMALL, f"output_dir={tmp_path / 'out'}", f"task.dataset.zarr_path={tmp_path / 'demos.zarr'}"]


@pytest.fixture
def train(arguments):
    register_resolvers()

    def make(*overrides, **options):
        with initialize_config_dir(str(ROOT / "config"), version_base=None):
            return TrainWorkspace(compose("train", overrides=[*arguments, *overrides]), **options)

    return make


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def script(arguments):
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]


ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_killed_at_any_moment_it_goes_on_to_the_same_state_and_logs_every_step_once(tmp_path, arguments, train):
    arguments = [*arguments, "training.max_steps=100", "training.checkpoint_every=7", "training.save_every=4"]
    out, moments, kills = tmp_path / "out", random.Random(3), 0
    for _ in range(2):
        process = subprocess.Popen(
            script(arguments), cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout:
            if line.startswith("step "):
                break
        time.sleep(moments.uniform(0.0, 0.4))
        kills += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        for folder in (out / "checkpoints").glob("step-*"):  # whatever has a config is a policy
            if (folder / "config.yaml").exists():
                load_policy(folder)
        if (out / "latest.safetensors").exists():
            load_file(out / "latest.safetensors")
    assert kills == 2
    train(*arguments).run()
    assert steps(out) == list(range(1, 101))
    assert [path for path in out.rglob(".*")] == []  # neither locks nor temporary files
    train(
        "training.max_steps=100",
        "training.checkpoint_every=0",
        "training.log_every=0",
        f"output_dir={tmp_path / 'whole'}",
        "training.save_every=100",
    ).run()
    a, b = load_file(out / "latest.safetensors"), load_file(tmp_path / "whole" / "latest.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "override, line",
    [
        (
            "task.policy.noise_scheduler.prediction_type=sample",
            "policy.noise_scheduler.prediction_type: epsilon -> sample",
        ),
        ("task.policy.noise_scheduler.num_train_timesteps=50", "policy.noise_scheduler.num_train_timesteps: 100 -> 50"),
        ("task.policy.model.p_drop_attn=0.5", "policy.model.p_drop_attn"),
        ("seed=7", "seed: 42 -> 7"),
        ("training.batch_size=8", "training.batch_size: 16 -> 8"),
        ("task.dataset.windows.val_ratio=0.5", "demonstrations, train windows"),
        ("task.dataset.symmetries=true", "demonstrations, numbers of obs"),
        ("task.name=other", "task: block_pushing -> other"),
    ],
)
def test_settings_that_decide_what_the_weights_mean_cannot_change(train, override, line):
    first = train("training.max_steps=2")
    first.run()
    before = first.state_file.read_bytes()
    with pytest.raises(ConfigError, match="output_dir=.*init_checkpoint=.*resume=false") as error:
        train(override).run()
    assert line in str(error.value) and len(str(error.value).splitlines()) < 10
    assert first.state_file.read_bytes() == before and steps(first.output_dir) == [1, 2]


def test_other_data_of_the_same_size_are_noticed(train, tmp_path):
    train("training.max_steps=2").run()
    demonstrations(tmp_path / "others.zarr", seed=1)
    with pytest.raises(ConfigError, match="demonstrations, numbers of action"):
        train(f"task.dataset.zarr_path={tmp_path / 'others.zarr'}").run()
    shutil.move(tmp_path / "demos.zarr", tmp_path / "moved.zarr")
    train(f"task.dataset.zarr_path={tmp_path / 'moved.zarr'}").run()  # the same data elsewhere


def test_another_start_is_noticed(train, tmp_path):
    train("training.max_steps=5").run()
    start = f"init_checkpoint={tmp_path / 'out' / 'checkpoints' / 'step-000005'}"
    with pytest.raises(ConfigError, match="start: None -> "):
        train(start).run()
    train(start, f"output_dir={tmp_path / 'second'}", "training.max_steps=2").run()
    train(start, f"output_dir={tmp_path / 'second'}", "training.max_steps=3").run()


def test_settings_that_change_the_course_go_on_and_are_listed(train, capsys):
    train("training.max_steps=2").run()
    train(
        "training.learning_rate=1e-5",
        "ema.power=0.5",
        "training.lr_schedule=cosine",
        "training.num_workers=1",
        "training.save_every=3",
        "wandb.project=other",
    ).run()
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert all(
        f"{name}: " in lines["changed, from here on"]
        for name in ("training.learning_rate", "ema.power", "training.lr_schedule")
    )
    harmless = lines["changed, without effect on what is learned"]
    assert all(
        f"{name}: " in harmless
        for name in ("training.max_steps", "training.num_workers", "training.save_every", "wandb.project")
    )
    assert "resuming" in "".join(lines)


def test_a_state_without_settings_goes_on_with_a_note(train, capsys):
    first = train("training.max_steps=2")
    first.run()
    with safe_open(first.state_file, "pt") as file:
        header = json.loads(file.metadata()["state"])
    del header["settings"]
    save_file(load_file(first.state_file), first.state_file, metadata={"state": json.dumps(header)})
    train().run()
    assert "did not store its settings" in capsys.readouterr().out and steps(first.output_dir) == list(range(1, 9))


def test_a_log_with_repeated_and_half_lines_is_put_right(train):
    first = train("training.max_steps=4")
    first.run()
    log = first.output_dir / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines, lines[3], '{"step": 5, "train_loss": 1.0}\n', '{"step": 6, "tra']))
    train("training.max_steps=6").run()
    assert steps(first.output_dir) == [1, 2, 3, 4, 5, 6]
    assert log.read_text().startswith("".join(lines))
    train("training.max_steps=3", "resume=false").run()
    assert steps(first.output_dir) == [1, 2, 3]


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
    tensors["model.model.head.bias"][0] = torch.nan
    save_file(tensors, first.state_file, metadata=metadata)
    with pytest.raises(ConfigError, match="holds NaN in model.model.head.bias"):
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
    assert steps(first.output_dir) == list(range(1, 9))


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


@pytest.mark.parametrize(
    "override, says",
    [
        ("training.batch_size=-4", "training.batch_size=-4"),
        ("training.batch_size=2.5", "whole number"),
        ("training.weight_decay=-1", "training.weight_decay=-1"),
        ("training.grad_clip=-1", "above 0"),
        ("training.grad_clip=null", "above 0"),
        ("training.snr_gamma=-5", "training.snr_gamma=-5"),
        ("training.snr_gamma=abc", "training.snr_gamma=abc"),
        ("training.lr_schedule=cosin", "cosine or trapezoid"),
        ("training.learning_rate=.nan", "training.learning_rate=.nan"),
        ("training.learning_rate=-1", "training.learning_rate"),
        ("training.betas=[0.9]", "two numbers"),
        ("training.betas=[0.9, 1.0]", "below 1"),
        ("training.log_every=-1", "training.log_every"),
        ("training.max_steps=0", "training.max_steps"),
        ("training.topk=0", "training.topk"),
        ("training.noise_draws=0", "training.noise_draws"),
        ("training.num_workers=-1", "training.num_workers"),
        ("training.num_threads=0", "training.num_threads"),
        ("training.decay_fraction=2", "at most 1"),
        ("seed=-1", "seed=-1"),
        ("seed=1.5", "seed=1.5"),
        ("ema.max_value=2", "ema.max_value=2"),
        ("ema.inv_gamma=0", "ema.inv_gamma"),
        ("ema.power=-1", "ema.power"),
        ("resume=5", "resume=5"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read_or_written(train, tmp_path, override, says):
    with pytest.raises(ConfigError) as error:
        train(override, "task.dataset.zarr_path=nowhere.zarr")
    assert says in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_best_policy_is_complete_at_every_moment(train):
    scores = iter([0.5, 0.7, 0.6, 0.9])
    workspace = train("training.checkpoint_every=2", "training.topk=1", rollout=lambda policy, step: next(scores))
    workspace.run()
    assert load_policy(workspace.output_dir / "best").step == 8
    assert sorted(path.name for path in (workspace.output_dir / "checkpoints").iterdir()) == ["step-000008"]


TRACKED = """
import json, sys
from pathlib import Path
from omegaconf import OmegaConf
from bac_workbench.tracking import start_run
cfg = OmegaConf.create({"wandb": {"mode": "offline", "project": "toy"}})
for resume in (True, True, False):
    run = start_run(cfg, "toy", Path(sys.argv[1]), resume)
    run.log({"loss": 1.0}, step=1)
    run.finish()
    print("id", run.id, flush=True)
"""


def test_a_training_that_goes_on_goes_on_in_its_wandb_run(tmp_path):
    pytest.importorskip("wandb")
    env = {**ENV, "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "WANDB_MODE": "offline"}
    result = subprocess.run(
        [sys.executable, "-c", TRACKED, str(tmp_path)], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    ids = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("id ")]
    assert ids[0] == ids[1] != ids[2] and (tmp_path / "wandb_run").read_text().strip() == ids[2]
    assert {path.name.split("-")[3] for path in (tmp_path / "wandb").glob("offline-run-*")} == set(ids)
