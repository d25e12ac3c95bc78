"""A training that is killed goes on to the same weights; what else changed is refused or said."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from tests.conftest import ROOT
from tests.workspace.small_training import ENV, demonstrations, logged_steps, script


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
    assert logged_steps(out) == list(range(1, 101))
    assert list(out.rglob(".*")) == []  # neither locks nor temporary files
    assert (out / "latest.safetensors").stat().st_mode == (out / "log.jsonl").stat().st_mode  # whoever reads the log
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
    assert first.state_file.read_bytes() == before and logged_steps(first.output_dir) == [1, 2]


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
    assert "did not store its settings" in capsys.readouterr().out and logged_steps(first.output_dir) == list(
        range(1, 9)
    )


def test_a_log_with_repeated_and_half_lines_is_put_right(train):
    first = train("training.max_steps=4")
    first.run()
    log = first.output_dir / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines, lines[3], '{"step": 5, "train_loss": 1.0}\n', '{"step": 6, "tra']))
    train("training.max_steps=6").run()
    assert logged_steps(first.output_dir) == [1, 2, 3, 4, 5, 6]
    assert log.read_text().startswith("".join(lines))
    train("training.max_steps=3", "resume=false").run()
    assert logged_steps(first.output_dir) == [1, 2, 3]
