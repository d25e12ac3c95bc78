"""`bac serve` as a process: the bundled policy with its certificate, signals, and settings that are refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from bac import accelerate
from bac_workbench.commands.serve import with_task
from bac_workbench.serving import run as serving
from bac_workbench.serving.access import VARIABLE
from bac_workbench.settings import check
from bac_workbench.settings.launch import check_command_line
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from tests.bac.tiny_policies import needs_compiler
from tests.conftest import ROOT
from tests.experiments.composed_settings import composed
from tests.experiments.serving.serving_tools import Client

CHECKPOINT = "checkpoint/pusht_lowdim/ddpm100"


@needs_compiler
def test_the_bundled_policy_is_served_reloaded_and_ended(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "experiments")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    environment.pop(VARIABLE, None)
    words = [f"checkpoint={CHECKPOINT}", "cache=tuned", "port=0", "threads=1"]
    command = [sys.executable, "-m", "bac_workbench.commands.main", "serve", *words]
    log = tmp_path / "log.txt"
    with (
        log.open("w") as file,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=file, stderr=file) as process,
    ):
        try:
            port = int(said(log, r"ws://127\.0\.0\.1:(\d+)", process))
            with Client(connect(f"ws://127.0.0.1:{port}", compression=None)) as client:
                policy = load_policy(ROOT / CHECKPOINT).policy
                observation = policy.random_observation(1, torch.Generator().manual_seed(0))
                request = {"obs": observation["obs"][0].numpy(), "seed": 5}
                with accelerate(policy, "tuned", threads=1) as fast:
                    wanted = fast.predict_action(observation, torch.Generator().manual_seed(5))["action"][0].numpy()
                assert client.metadata["cache"] == "full" and client.metadata["sampler"] == "ancestral4"
                assert np.array_equal(client.request(request)["actions"], wanted)
                process.send_signal(signal.SIGHUP)
                said(log, "(reloaded in)", process)
                assert np.array_equal(client.request(request)["actions"], wanted)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()
        finally:
            process.kill()
    text = log.read_text()
    assert "runtime compiled differs from the reference by" in text and "shut down; 2 chunks answered" in text


def said(log, pattern, process, seconds=90):
    """What a process has written, as soon as it has."""
    for _ in range(10 * seconds):
        if found := re.search(pattern, log.read_text()):
            return found[1]
        if process.poll() is not None:
            break
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            pass
    raise AssertionError(log.read_text())


# ---- settings --------------------------------------------------------------------------------------------------------


def test_the_task_is_found_in_the_checkpoint():
    assert with_task([f"checkpoint={CHECKPOINT}", "port=0"]) == [
        "task=pusht_lowdim",
        f"checkpoint={CHECKPOINT}",
        "port=0",
    ]
    for arguments in ([], ["task=kitchen", f"checkpoint={CHECKPOINT}"], ["cache=full"], ["checkpoint=x", "--help"]):
        assert with_task(arguments) == arguments


def test_nobody_is_let_in_from_elsewhere_without_a_token(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(serving, "load_served", lambda *arguments: pytest.fail("it was loaded"))
    with pytest.raises(ConfigError, match="host=0.0.0.0 can be reached from other machines"):
        serving.run(check(composed("serve", "host=0.0.0.0"), "serve", ["host=0.0.0.0"]))


@pytest.mark.parametrize(
    "setting",
    [
        "host='a b'",
        "host=http://127.0.0.1",
        "port=-1",
        "port=65536",
        "max_clients=0",
        "max_waiting=-1",
        "max_request_kb=0",
        "max_rate=0",
        "timeout_s=0",
        "drain_s=-1",
        "deadline_ms=0",
        "max_rate=inf",
        "sampler=ddim16",
        "token=secret",
    ],
)
def test_settings_that_cannot_be_meant_are_refused(setting):
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        check_command_line(["task=pusht_lowdim", setting], "serve")
