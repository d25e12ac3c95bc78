"""Downloading one file from a server: progress, resuming, and servers that misbehave."""

from __future__ import annotations

import pytest

from bac_workbench.downloads.fetch import fetch
from diffusion_policy.dataset.replay_buffer import DatasetError


def test_fetch_reports_progress_and_leaves_only_the_file(server, tmp_path):
    url, handler = server
    seen = []
    fetch(url, tmp_path / "new" / "toy.zip", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "new" / "toy.zip").read_bytes() == handler.body
    assert seen[-1] == (len(handler.body), len(handler.body))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["toy.zip"]


def test_fetch_resumes_after_a_dropped_connection(server, tmp_path):
    url, handler = server
    handler.cut_at = 100
    with pytest.raises(DatasetError, match="closed after 100 of .* resume"):
        fetch(url, tmp_path / "toy.zip")
    assert not (tmp_path / "toy.zip").exists()
    handler.cut_at = None
    fetch(url, tmp_path / "toy.zip")
    assert handler.requested == [None, "bytes=100-"]
    assert (tmp_path / "toy.zip").read_bytes() == handler.body


def test_fetch_starts_over_when_the_server_ignores_the_range(server, tmp_path):
    url, handler = server
    handler.honour_range = False
    (tmp_path / "toy.zip.part").write_bytes(b"x" * 50)
    fetch(url, tmp_path / "toy.zip")
    assert (tmp_path / "toy.zip").read_bytes() == handler.body


def test_fetch_accepts_a_part_that_was_complete(server, tmp_path):
    url, handler = server
    (tmp_path / "toy.zip.part").write_bytes(handler.body)
    fetch(url, tmp_path / "toy.zip")
    assert (tmp_path / "toy.zip").read_bytes() == handler.body


def test_fetch_without_a_server_says_what_to_do(server, tmp_path):
    url, _ = server
    with pytest.raises(DatasetError, match="answered 404"):
        fetch(url.replace("toy.zip", "nothing.zip"), tmp_path / "nothing.zip")
    with pytest.raises(DatasetError, match="cannot download .* put it at"):
        fetch("http://127.0.0.1:9/toy.zip", tmp_path / "toy.zip")
    assert list(tmp_path.glob("*.zip*")) == []


@pytest.mark.parametrize(
    "url",
    [
        "abc",
        "5",
        "http://",
        "https:///x",
        "ftp://x.org/a.zip",
        "http://[::1",
        "http://x.org:abc/a.zip",
        "http://x.org/a b.zip",
        "file://",
        "",
        5,
        None,
    ],
)
def test_what_is_no_address_is_refused(tmp_path, url):
    with pytest.raises(DatasetError, match="is no address of a file: use https://"):
        fetch(url, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_longer_than_the_file_is_dropped(server, tmp_path):
    url, handler = server
    handler.say_size = True
    (tmp_path / "toy.zip.part").write_bytes(handler.body + b"more")
    with pytest.raises(DatasetError, match="was of another file and is removed"):
        fetch(url, tmp_path / "toy.zip")
    fetch(url, tmp_path / "toy.zip")
    assert (tmp_path / "toy.zip").read_bytes() == handler.body
