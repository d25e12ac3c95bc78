"""Converting a checkpoint: one process per output, and what a killed one left."""

import pytest

from bac_workbench.setup.conversion import convert
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.lock import LockedError, locked_output


def test_a_conversion_that_was_killed_before_its_config_is_finished_by_the_same_command(checkpoint, tmp_path):
    first = convert(checkpoint, tmp_path / "out")
    (tmp_path / "out" / "config.yaml").unlink()
    assert convert(checkpoint, tmp_path / "out").hash == first.hash == load_policy(tmp_path / "out").hash
    with pytest.raises(ConfigError, match="overwrite=true"):
        convert(checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_weights_of_another_origin_are_not_overwritten(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "policy.safetensors").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="overwrite=true"):
        convert(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "policy.safetensors").read_bytes() == b"mine"


def test_two_conversions_do_not_share_an_output(checkpoint, tmp_path):
    from diffusion_policy.common import lock

    with locked_output(tmp_path / "out", "another conversion"):
        held = dict(lock._held)
        lock._held.clear()  # as another process sees it
        try:
            with pytest.raises(LockedError, match="another conversion"):
                convert(checkpoint, tmp_path / "out")
        finally:
            lock._held.update(held)
    assert not (tmp_path / "out").exists()
    convert(checkpoint, tmp_path / "out")
