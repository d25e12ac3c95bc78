"""Downloading the human Kitchen demonstrations, of which no checksum is published.

The archive is served from a file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from kitchen_data import mjl_bytes, write_arrays, write_log

from bac_workbench.commands.download_data import main
from bac_workbench.downloads.datasets import KITCHEN, SOURCES, NoChecksumError, download, verify
from bac_workbench.downloads.sources import RECORD, files_sha256
from diffusion_policy.dataset import kitchen_files
from diffusion_policy.dataset.kitchen_dataset import load_kitchen_logs, load_kitchen_npy
from diffusion_policy.dataset.replay_buffer import DatasetError
from diffusion_policy.dataset.sequence_dataset import Windows

LENGTHS = (5, 8, 6)


@pytest.fixture(autouse=True)
def few_demonstrations(monkeypatch):
    monkeypatch.setattr(kitchen_files, "PUBLISHED_DEMONSTRATIONS", len(LENGTHS))
    monkeypatch.setattr(kitchen_files, "PUBLISHED_LONGEST", max(LENGTHS))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder that is archived, with the layout of the published one."""
    folder = tmp_path / "made" / "kitchen"
    write_arrays(folder, LENGTHS)
    for index, task in enumerate(("friday_a", "friday_a", "postcorl_b", "postcorl_b")):
        write_log(folder / "kitchen_demos_multitask" / task / f"log_{index}.mjl", 90, seed=index)
    (folder / "notes.txt").write_text("counts for nothing")
    return folder


def pack(made: Path) -> str:
    """URL of the zip archive of `made`."""
    path = made.parents[1] / "served" / "kitchen.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for item in sorted(made.rglob("*")):
            file.write(item, item.relative_to(made.parent))
    return path.as_uri()


# ---- download ----
def test_both_tasks_are_one_archive_that_is_kept_complete_with_its_checksum(made, tmp_path):
    assert SOURCES["kitchen_lowdim"] is SOURCES["kitchen_lowdim_abs"] is KITCHEN
    folder = download(KITCHEN, tmp_path / "data", pack(made))
    assert folder == tmp_path / "data" / "kitchen" and [p.name for p in (tmp_path / "data").iterdir()] == ["kitchen"]
    assert json.loads((folder / RECORD).read_text())["sha256"] == files_sha256(folder, KITCHEN.keys)
    found = verify(folder, KITCHEN)
    assert (found.n_arrays, found.n_logs) == (3, 4)
    assert len(load_kitchen_npy(folder, Windows(2, val_ratio=0.0))[0]) == sum(length - 1 for length in LENGTHS)
    assert len(load_kitchen_logs(folder / "kitchen_demos_multitask", Windows(2, val_ratio=0.0))[0]) == 4 * 2
    (folder.parent / "kitchen.zip").write_text("never looked at")
    assert download(KITCHEN, tmp_path / "data", "file:///nowhere/kitchen.zip") == folder


def damage(made: Path, how: str) -> str:
    """Damages `made` and returns what the error must say."""
    logs = made / "kitchen_demos_multitask"
    if how == "log cut short":
        (logs / "friday_a" / "log_0.mjl").write_bytes(mjl_bytes(90)[0][:-8])
        return r"log_0\.mjl is cut short"
    if how == "no logs":
        shutil.rmtree(logs)
        return r"no readable \*\.mjl log"
    if how == "few logs":
        shutil.rmtree(logs / "postcorl_b")
        return "only 2 different logs for 3 demonstrations"
    if how == "no array":
        (made / "actions_seq.npy").unlink()
        return "cannot read .*actions_seq.npy"
    if how == "few demonstrations":
        write_arrays(made, LENGTHS[:2])
        return "2 demonstrations of at most 8 steps; 3 of at most 8 steps are published"
    assert how == "few initial states"
    for name, width in (("all_init_qpos", 30), ("all_init_qvel", 29)):
        np.save(made / f"{name}.npy", np.zeros((2, width)))
    return "2 initial states for 3 demonstrations"


HOWS = ("log cut short", "no logs", "few logs", "no array", "few demonstrations", "few initial states")


@pytest.mark.parametrize("how", HOWS)
def test_an_archive_that_is_not_the_published_one_leaves_no_folder(made, tmp_path, how):
    message = damage(made, how)
    with pytest.raises(DatasetError, match=rf"(?s){message}.*Delete .*kitchen\.zip"):
        download(KITCHEN, tmp_path / "data", pack(made))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["kitchen.zip"]


@pytest.mark.parametrize("change", ["number", "added", "removed", "renamed"])
def test_a_change_after_the_download_is_seen(made, tmp_path, change):
    folder = download(KITCHEN, tmp_path / "data", pack(made))
    log = folder / "kitchen_demos_multitask" / "friday_a" / "log_0.mjl"
    if change == "number":
        content = bytearray(log.read_bytes())
        content[-1] ^= 1
        log.write_bytes(content)
    elif change == "added":
        write_log(log.with_name("more.mjl"), 50, seed=9)
    elif change == "removed":
        log.unlink()
    else:
        log.rename(log.with_name("renamed.mjl"))
    for check in (verify, lambda folder, source: download(source, folder.parent)):
        with pytest.raises(DatasetError, match="holds other data than expected"):
            check(folder, KITCHEN)


def test_other_files_do_not_count(made, tmp_path):
    folder = download(KITCHEN, tmp_path / "data", pack(made))
    (folder / "notes.txt").write_text("changed")
    verify(folder, KITCHEN)


def test_a_given_checksum_is_enforced_and_recorded(made, tmp_path):
    right, url = files_sha256(made, KITCHEN.keys), pack(made)
    with pytest.raises(DatasetError, match="expected 0000.*\n.*Delete"):
        download(KITCHEN, tmp_path / "data", url, sha256="0" * 64)
    assert not (tmp_path / "data" / "kitchen").exists()
    folder = download(KITCHEN, tmp_path / "data", url, sha256=right)
    assert json.loads((folder / RECORD).read_text())["sha256"] == right
    with pytest.raises(DatasetError, match="expected 0000"):
        verify(folder, KITCHEN, "0" * 64)


def test_a_damaged_record_is_an_error(made, tmp_path):
    folder = download(KITCHEN, tmp_path / "data", pack(made))
    for content in ("{", "[]", '{"sha256": 5}', '{"sha256": "abcd"}'):
        (folder / RECORD).write_text(content)
        with pytest.raises(DatasetError, match=f"{RECORD} is damaged .* delete it"):
            verify(folder, KITCHEN)


# ---- checksum ----
def test_checksum_follows_its_definition(tmp_path):
    for name, content in (("b.npy", b"one"), ("a/c d.mjl", b"two"), ("a.mjl", b"three"), ("other.txt", b"four")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    lines = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in (("a.mjl", b"three"), ("a/c d.mjl", b"two"), ("b.npy", b"one"))
    )
    assert files_sha256(tmp_path, KITCHEN.keys) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_checksum_can_be_computed_with_the_documented_command(made):
    (command,) = [line.strip().strip("`.") for line in files_sha256.__doc__.splitlines() if "sha256sum |" in line]
    result = subprocess.run(["bash", "-c", command], cwd=made, text=True, capture_output=True, check=True, timeout=30)
    assert result.stdout.split()[0] == files_sha256(made, KITCHEN.keys)


# ---- command line ----
def test_the_command_records_and_then_verifies(made, tmp_path, capsys):
    arguments = ["task=kitchen_lowdim_abs", f"data_dir={tmp_path / 'data'}", f"url={pack(made)}"]
    checksum = files_sha256(made, KITCHEN.keys)
    assert main(arguments) == 0
    assert (
        f"complete, content sha256 {checksum} recorded in checksum.json (none is published)" in capsys.readouterr().out
    )
    for more in ([], ["verify=true"], [f"sha256={checksum.upper()}"], ["task=kitchen_lowdim", "verify=true"]):
        assert main(arguments + more) == 0
        assert f"verified, content sha256 {checksum}" in capsys.readouterr().out
    (tmp_path / "data" / "kitchen" / "all_init_qvel.npy").unlink()
    assert main(arguments) == 1
    assert "Move the folder away and download it again" in capsys.readouterr().err


def test_an_archive_unpacked_by_hand_is_accepted_and_recorded(made, tmp_path, capsys):
    shutil.copytree(made, tmp_path / "data" / "kitchen")
    arguments = ["task=kitchen_lowdim", f"data_dir={tmp_path / 'data'}"]
    with pytest.raises(NoChecksumError):
        verify(tmp_path / "data" / "kitchen", KITCHEN)
    assert main([*arguments, "verify=true"]) == 1
    error = capsys.readouterr().err
    assert (
        "no checksum to compare it with" in error
        and "leaving out verify=true" in error
        and "Move the folder" not in error
    )
    assert main([*arguments, "verify=true", f"sha256={files_sha256(made, KITCHEN.keys)}"]) == 0
    assert not (tmp_path / "data" / "kitchen" / RECORD).exists()
    assert main(arguments) == 0 and main([*arguments, "verify=true"]) == 0
    assert "verified" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sha256=abc"], "use the 64 hexadecimal digits"),
        (["url=file:///nowhere/kitchen.zip"], "put it at {tmp}/kitchen.zip"),
        (["verify=true"], "no data set at {tmp}/kitchen: download it with"),
    ],
)
def test_bad_input_is_one_error_and_exit_code_1(tmp_path, capsys, arguments, message):
    assert main(["task=kitchen_lowdim_abs", f"data_dir={tmp_path}", *arguments]) == 1
    error = capsys.readouterr().err
    assert message.format(tmp=tmp_path) in error and "Traceback" not in error
    assert list(tmp_path.rglob("*")) == []


def test_help_says_that_nobody_published_a_checksum(capsys):
    assert main(["help"]) == 0
    assert "nobody published a checksum" in capsys.readouterr().out
