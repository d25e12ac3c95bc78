"""Two downloads of one data set or checkpoint at once: the second is refused and names the first."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from bac_workbench.downloads.checkpoints import get_checkpoint
from bac_workbench.downloads.datasets import SOURCES, download
from diffusion_policy.common.lock import LockedError
from tests.conftest import ROOT

HOLD = (
    "import sys; from pathlib import Path; from diffusion_policy.common.lock import locked_output\n"
    "with locked_output(Path(sys.argv[1]), 'another download'):\n    print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def held(tmp_path):
    """Another process holds the lock of `tmp_path`/data."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"held\n"
        yield other.pid
        other.stdin.close()


def test_one_data_set_is_downloaded_once_at_a_time(held, tmp_path):
    source = replace(SOURCES["pusht_lowdim"], folder="data")
    with pytest.raises(LockedError, match=f"another download, process {held}"):
        download(source, tmp_path, url=(tmp_path / "none.zip").as_uri())


def test_one_checkpoint_is_downloaded_once_at_a_time(held, tmp_path):
    with pytest.raises(LockedError, match=f"another download, process {held}"):
        get_checkpoint(tmp_path.as_uri(), tmp_path, "data")
