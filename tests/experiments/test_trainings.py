"""train=, checkpoint_type= and download=: which of the published checkpoints is taken, and how it gets here."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest

from bac_workbench.evaluation.folder import default_output_dir
from bac_workbench.setup import task_files
from bac_workbench.setup.checkpoints import find_checkpoint
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.setup.trainings import Training
from diffusion_policy.common.errors import UserError
from tests.experiments.test_checkpoints import settings
from tests.released.conftest import write_original

BEST = "epoch=0650-test_mean_score=1.000.ckpt"
PLACE = "checkpoint/{}/diffusion_policy_transformer/train_{}/checkpoints"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


@pytest.fixture
def server(place, monkeypatch) -> Path:
    """The authors' server, on this machine: the folder that it serves."""
    folder = place / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(task_files, "SERVER", f"http://127.0.0.1:{httpd.server_port}")
    yield folder
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def touch(folder: str, *names: str) -> None:
    Path(folder).mkdir(parents=True)
    for name in names:
        Path(folder, name).touch()


def found(*overrides: str) -> Path:
    chosen = settings("cache=full", *overrides)
    training = Training(chosen.train, chosen.checkpoint_type)
    return find_checkpoint(chosen.checkpoint, chosen.task, training, bool(chosen.download))


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        found(*overrides)
    assert len(str(caught.value).splitlines()) < 12
    return str(caught.value)


@pytest.mark.parametrize(
    "task, folder",
    [("can_ph", "can_ph"), ("kitchen_lowdim_abs", "low_dim/kitchen"), ("block_pushing", "low_dim/block_pushing")],
)
def test_the_tree_of_the_release_is_understood(place, task, folder):
    for train in (0, 1, 2):
        touch(PLACE.format(folder, train), "epoch=0300-test_mean_score=0.900.ckpt", BEST, "latest.ckpt")
    where = Path(PLACE.format(folder, 1))
    assert found(f"task={task}", "train=1", "checkpoint_type=max") == where / BEST
    assert found(f"task={task}", "train=1", "checkpoint_type=avg") == where / "latest.ckpt"
    message = refusal(f"task={task}", "train=1")
    assert "has 3 checkpoints here for train=1: add checkpoint_type=max" in message
    message = refusal(f"task={task}", "checkpoint_type=avg")
    assert "add train=0 or train=1 or train=2" in message


def test_the_only_one_needs_no_more_words(place):
    touch(PLACE.format("can_ph", 2), BEST)
    assert found("task=can_ph", "train=2") == Path(PLACE.format("can_ph", 2), BEST) == found("task=can_ph")
    assert "has no checkpoint here for train=2 checkpoint_type=avg" in refusal(
        "task=can_ph", "train=2", "checkpoint_type=avg"
    )


def test_a_missing_one_offers_the_download_and_a_named_file_excludes_it(place):
    message = refusal("task=can_ph", "train=1")
    assert "add download=true" in message and "checkpoint/can_ph/diffusion_policy_transformer" in message
    assert "add download=true" in refusal("task=can_ph")
    assert "leave one of them out" in refusal("task=can_ph", "train=1", "checkpoint=mine.ckpt")
    assert "publishes no trainings" in refusal("task=kitchen_scripted_demos", "train=1")


def test_a_download_goes_on_with_what_it_got_and_pins_its_checksum(place, server, capsys):
    pytest.importorskip("pymunk")
    path = f"low_dim/pusht/diffusion_policy_transformer/train_{{}}/checkpoints/{BEST}"
    for train in (0, 1, 2):
        write_original(server / path.format(train), seed=train)
    name = Path(path).name
    experiments = {
        train: load_experiment(
            settings(
                "task=pusht_lowdim",
                "cache=full",
                f"train={train}",
                "checkpoint_type=max",
                "download=true",
                "device=cpu",
            )
        )
        for train in (0, 1, 2)
    }
    here = Path(PLACE.format("pusht_lowdim", 1), name)
    assert experiments[1].loaded.source == here and here.with_name(f"{name}.sha256").exists()
    assert "sha256" in capsys.readouterr().out
    folders = [str(default_output_dir(experiment)) for experiment in experiments.values()]
    assert folders == [f"results/pusht_lowdim/full-train{train}-max" for train in (0, 1, 2)]
    assert len({experiment.loaded.hash for experiment in experiments.values()}) == 3

    # What comes later under the same name is another file: it is refused, and the record stays.
    here.unlink()
    write_original(server / path.format(1), seed=5)
    message = refusal("task=pusht_lowdim", "train=1", "checkpoint_type=max", "download=true")
    assert "is another file than expected" in message and not here.exists()


def test_a_checkpoint_that_is_here_is_not_downloaded(place, server):
    touch(PLACE.format("can_ph", 0), "latest.ckpt")
    assert found("task=can_ph", "download=true") == Path(PLACE.format("can_ph", 0), "latest.ckpt")
    assert "answered 404" in refusal("task=can_ph", "train=1", "download=true")
