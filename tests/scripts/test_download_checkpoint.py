"""bac checkpoint download against a server on this machine: what arrives, resumes, is refused and is found."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest
import torch

from bac_workbench.commands.download_checkpoint import main
from bac_workbench.downloads.fetch import file_sha256
from bac_workbench.setup.task_files import task_files
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.model.common.normalizer import LinearNormalizer
from tests.original_checkpoints import lowdim_config, lowdim_payload, saved

BEST = "epoch=0650-test_mean_score=1.000.ckpt"
FOLDER = Path("checkpoint", "can_lowdim_ph", "diffusion_policy_transformer", "train_0", "checkpoints")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with an HTML index; answers ranges; closes the connection after `cut_at` bytes."""

    cut_at: int | None = None
    requested: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.requested.append((self.path, asked))
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            super().do_GET()
            return
        body, start = path.read_bytes(), int(asked[len("bytes=") : -1]) if asked else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.cut_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    policy = build_policy(lowdim_config())
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 3), "action": torch.rand(50, 2)}))
    return saved(tmp_path_factory.mktemp("original") / "latest.ckpt", lowdim_payload(policy))


@pytest.fixture
def served(tmp_path, original) -> Path:
    """What the server offers: latest.ckpt and three with a score in their names."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name in ("latest.ckpt", BEST, "epoch=0300-test_mean_score=1.000.ckpt", "epoch=2000-test_mean_score=0.955.ckpt"):
        (folder / name).write_bytes(original.read_bytes())
    (folder / "logs.json.txt").touch()
    return folder


@pytest.fixture
def handler(served):
    return type("Server", (Handler,), {"requested": []})


@pytest.fixture
def url(served, handler):
    httpd = http.server.HTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(served)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def download(tmp_path, url, monkeypatch, capsys):
    """download('name=best') -> (exit code, stdout, stderr), run in an empty folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(*arguments: str, address: str = url):
        code = main(["task=can_lowdim_ph", f"url={address}", *arguments])
        return code, *capsys.readouterr()

    return run


def here() -> list[str]:
    return sorted(path.name for path in FOLDER.iterdir())


def test_the_last_checkpoint_arrives_where_other_commands_find_it(download, original):
    code, out, _ = download()
    assert code == 0 and here() == ["latest.ckpt", "latest.ckpt.sha256"]
    assert (FOLDER / "latest.ckpt").read_bytes() == original.read_bytes()
    digest = file_sha256(original)
    assert (FOLDER / "latest.ckpt.sha256").read_text() == f"{digest}  latest.ckpt\n"  # as sha256sum -c reads it
    assert (
        digest in out and "first one recorded" in out and f"{original.stat().st_size / 1e6:,.1f} MB, step 1234" in out
    )
    assert load_policy(FOLDER / "latest.ckpt").hash[:12] in out
    assert out.endswith("bac eval task=can_lowdim_ph cache=bac\n")
    assert task_files()["can_lowdim_ph"].downloaded() == [FOLDER / "latest.ckpt"]


def test_a_second_run_compares_with_the_record_and_downloads_nothing(download, handler):
    download()
    requests = len(handler.requested)
    code, out, _ = download()
    assert code == 0 and "as expected" in out and len(handler.requested) == requests
    path = FOLDER / "latest.ckpt"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    code, _, error = download()
    assert code == 1 and f"{path} is another file than expected" in error and "Delete it" in error and path.exists()


def test_an_interrupted_download_is_resumed(download, handler, original):
    handler.cut_at = 1000
    code, _, error = download()
    assert code == 1 and "closed after 1,000 of" in error and here() == ["latest.ckpt.unverified.part"]
    handler.cut_at = None
    assert download()[0] == 0
    assert handler.requested == [("/latest.ckpt", None), ("/latest.ckpt", "bytes=1000-")]
    assert (FOLDER / "latest.ckpt").read_bytes() == original.read_bytes() and len(here()) == 2


def test_names_with_scores(download, handler):
    code, out, _ = download("name=list")
    assert code == 0 and out.splitlines() == [
        "epoch=0300-test_mean_score=1.000.ckpt",
        BEST,
        "epoch=2000-test_mean_score=0.955.ckpt",
        "latest.ckpt",
    ]
    assert not Path("checkpoint").exists()
    assert download("name=best")[0] == 0 and here() == [BEST, f"{BEST}.sha256"]
    assert handler.requested[-1][0] == f"/{BEST.replace('=', '%3D')}"
    code, out, _ = download(f"name={BEST}", "train=2")
    other = FOLDER.parents[1] / "train_2" / "checkpoints" / BEST
    assert code == 0 and other.exists() and f"""'checkpoint="{other}"'""" in out  # two now: it has to be named


def test_what_the_server_has_instead_is_refused_and_kept(download, served, original):
    download()
    (FOLDER / "latest.ckpt").unlink()
    (served / "latest.ckpt").write_bytes(original.read_bytes() + b"\0")
    code, _, error = download()
    assert code == 1 and "the server has another one now" in error
    assert here() == ["latest.ckpt.sha256", "latest.ckpt.unverified"]
    digest = file_sha256(served / "latest.ckpt")
    assert f"sha256={digest} accepts it" in error
    code, _, _ = download(f"sha256={digest}")
    assert code == 0 and here() == ["latest.ckpt", "latest.ckpt.sha256"]
    assert digest in (FOLDER / "latest.ckpt.sha256").read_text()


def test_a_page_instead_of_a_checkpoint_is_refused(download, served):
    (served / "latest.ckpt").write_bytes(b"<!DOCTYPE html><html>")
    code, _, error = download()
    assert code == 1 and "no PyTorch file" in error and "latest.ckpt.unverified" in error.splitlines()[-1]
    assert here() == ["latest.ckpt.unverified"] and not task_files()["can_lowdim_ph"].downloaded()


def test_a_file_put_in_place_by_hand_needs_no_network(download, original):
    FOLDER.mkdir(parents=True)
    (FOLDER / "latest.ckpt").write_bytes(original.read_bytes())
    code, out, _ = download(address="http://127.0.0.1:9")
    assert code == 0 and file_sha256(original) in out and here() == ["latest.ckpt", "latest.ckpt.sha256"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=null"], "which task? use one of task=block_pushing"),
        (["nmae=best"], "unknown setting nmae"),
        (["task=kitchen_scripted_demos"], "no original checkpoint is known for task=kitchen_scripted_demos"),
        (["name=newest"], "use best, list or the name"),
        (["name=../x.ckpt"], "use best, list or the name of a .ckpt file"),
        (["train=3"], "use 0, 1 or 2"),
        (["sha256=abc"], "64 hexadecimal"),
        (["name=epoch=0001.ckpt"], "answered 404"),
        (["url=http://127.0.0.1:9"], "cannot download"),
        (["url=http://127.0.0.1:9", "name=best"], "cannot list http://127.0.0.1:9/"),
        (["url={url}/empty", "name=list"], "lists no checkpoints"),
    ],
)
def test_bad_input_is_one_error_and_exit_code_1(download, served, url, arguments, message):
    (served / "empty").mkdir()
    code, out, error = download(*(argument.format(url=url) for argument in arguments))
    assert code == 1 and message in error and not out and "Traceback" not in error
    assert not any(path.is_file() for path in Path.cwd().rglob("*"))


def test_help(download):
    assert "name=list" in download("--help")[1]
