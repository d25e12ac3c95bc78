"""The command line of bac data download."""

from __future__ import annotations

import pytest

from bac_workbench.commands.download_data import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which task? use task=pusht_lowdim"),
        (["task=juggling"], "no public data is known for task=juggling"),
        (["tsak=pusht_lowdim"], "unknown setting tsak"),
        (["task=pusht_lowdim", "verify=maybe"], "verify=true or verify=false"),
        (["task=pusht_lowdim", "url=file:///nowhere/pusht.zip", "data_dir={tmp}"], "cannot download"),
        (["task=pusht_lowdim", "verify=true", "data_dir={tmp}"], "download it with"),
    ],
)
def test_bad_input_is_one_error_and_exit_code_1(tmp_path, capsys, arguments, message):
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 1
    stderr = capsys.readouterr().err
    assert message in stderr and "Traceback" not in stderr
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_verify_accepts_the_genuine_data(pusht_zarr, capsys):
    assert main(["task=pusht_lowdim", "verify=true", f"data_dir={pusht_zarr.parents[1]}"]) == 0
    assert "verified, content sha256" in capsys.readouterr().out


def test_a_damaged_folder_is_kept_and_explained(tmp_path, capsys):
    folder = tmp_path / "pusht" / "pusht_cchi_v7_replay.zarr"
    folder.mkdir(parents=True)
    assert main(["task=pusht_lowdim", f"data_dir={tmp_path}"]) == 1
    assert "Move the folder away" in capsys.readouterr().err
    assert folder.is_dir()


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "verify=true" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["url=abc"], "url=abc: use an address"),
        (["url=5", "data_dir=5"], "url=5: use an address"),
        (["data_dir="], "data_dir=: use a path"),
        (["data_dir=null"], "data_dir=null: use a path"),
        (["verify=5"], "verify=true or verify=false"),
        (["verify"], "have the form key=value"),
        (["sha256=5"], "64 hexadecimal"),
        (["a.b=1"], "unknown setting a.b"),
        (["url=https://x.org/"], "names no file"),
    ],
)
def test_values_that_cannot_be_meant(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["task=pusht_lowdim", *arguments]) == 1
    error = capsys.readouterr().err
    assert (
        error.startswith("error: ") and message in error and "Traceback" not in error and list(tmp_path.iterdir()) == []
    )


@pytest.mark.parametrize("name", ["20240601", "2024_06_01", "1e5", "007", "true", "a=b"])
def test_folder_names_are_text(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert main(["task=pusht_lowdim", f"data_dir={name}", "verify=true"]) == 1
    assert f"no data set at {name}/pusht/" in capsys.readouterr().err
