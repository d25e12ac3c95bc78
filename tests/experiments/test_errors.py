"""Which errors are shown on one screen, and which keep their traceback."""

from __future__ import annotations

import errno

import pytest
from hydra.errors import InstantiationException
from omegaconf.errors import ConfigKeyError

from bac.native.errors import CompilerMissing
from bac.provenance import ScheduleError
from bac_workbench.console import readable_errors
from diffusion_policy.common.config import CheckpointError, ConfigError
from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.env.extras import MissingExtraError
from diffusion_policy.env.offscreen import RenderingError
from diffusion_policy.env_runner.vector import EnvWorkerError

ABOUT_WHAT_WAS_ASKED = [
    ConfigError("use another value"),
    CheckpointError("it is cut short"),
    DatasetError("there is no data"),
    MissingExtraError("install the extra"),
    RenderingError("nothing can be drawn here"),
    EnvWorkerError("the simulator failed"),
    ScheduleError("row 0 has to be all true"),
    CompilerMissing("install a compiler"),
    ConfigKeyError("there is no such key"),
    OSError(errno.ENOSPC, "No space left on device", "results/episodes.jsonl"),
    PermissionError(errno.EACCES, "Permission denied", "results"),
    MemoryError("a smaller batch fits"),
]


@pytest.mark.parametrize("error", ABOUT_WHAT_WAS_ASKED, ids=lambda error: type(error).__name__)
def test_what_the_user_can_change_is_one_message_and_status_one(error, capsys):
    with pytest.raises(SystemExit) as end, readable_errors():
        raise error
    shown = capsys.readouterr().err
    assert end.value.code == 1 and shown == f"error: {error}\n"


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), TypeError("x"), RuntimeError("x"), OSError("x")])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)) as raised, readable_errors():
        raise error
    assert raised.value is error


def test_what_hydra_built_speaks_for_itself(capsys):
    with pytest.raises(SystemExit), readable_errors():
        raise InstantiationException("Error in call to target") from ConfigError("n_layer=0 is not possible")
    assert capsys.readouterr().err == "error: n_layer=0 is not possible\n"


def test_an_interruption_says_that_the_same_command_goes_on(capsys):
    with pytest.raises(SystemExit) as end, readable_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130 and "the same command goes on from there" in capsys.readouterr().out
