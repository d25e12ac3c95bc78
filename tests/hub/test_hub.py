"""hf:user/name loads a policy and `bac checkpoint push` uploads one, against a server on this machine."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import constants

from bac import Schedule, Tuned, accelerate
from bac_workbench.commands import push_checkpoint
from bac_workbench.setup.publishing import push
from diffusion_policy.common import hub
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import CheckpointError, ConfigError
from tests.conftest import ROOT
from tests.hub_server import serving
from tests.tiny_policy import save_tiny_policy

BUNDLED, ASSETS = ROOT / "checkpoint" / "pusht_lowdim" / "ddpm100", ROOT / "assets" / "pusht_lowdim"


@pytest.fixture
def server(monkeypatch, tmp_path):
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
        yield running


@pytest.fixture
def folder(tmp_path):
    return save_tiny_policy(tmp_path / "policy", "pusht_lowdim", (0.0, 512.0), (0.0, 512.0), steps=4)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf:user/name", ("user/name", "", None)),
        ("hf:user/name@v1.0", ("user/name", "", "v1.0")),
        ("hf:user/name/pusht/best@refs/pr/1", ("user/name", "pusht/best", "refs/pr/1")),
    ],
)
def test_addresses(text, parts):
    address = hub.parse(text)
    assert (address.repository, address.inside, address.revision) == parts and str(address) == text


@pytest.mark.parametrize(
    "text", ["hf:", "hf:name", "hf:user/../name", "hf:user/name@", "hf:user/name/../x", "hf:a b/c"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(CheckpointError, match="is no address on the Hugging Face Hub: use hf:user/name"):
        load_policy(text)


def test_a_policy_goes_there_and_back_with_its_certificate_and_schedules(server, capsys, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["bac", f"checkpoint={BUNDLED}", "to=hf:user/pusht", f"assets={ASSETS}", "private=true"]
    )
    push_checkpoint.main()
    said = capsys.readouterr().out
    assert server.private["user/pusht"] is True and f"{server.url}/user/pusht/commit/" in said
    loaded = load_policy("hf:user/pusht")
    assert loaded.hash == load_policy(BUNDLED).hash and server.heads["user/pusht"] in str(loaded.source)
    tuned = Tuned.load(loaded.source.parent / "tuned.json")
    with accelerate(loaded.policy, tuned):
        pass
    stored = loaded.source.parent / "schedules" / "bac_s10.json"
    assert Schedule.load(stored) == Schedule.load(ASSETS / "schedules" / "bac_s10.json")
    card = server.repositories["user/pusht"][server.heads["user/pusht"]]["README.md"].decode()
    assert loaded.hash[:12] in card and str(tuned) in card and 'load_policy("hf:user/pusht")' in card


def test_revisions_and_folders(server, folder):
    first = push(str(folder), "hf:user/tiny/small", private=False)
    assert str(first.address) == f"hf:user/tiny/small@{server.heads['user/tiny']}"
    server.commit("user/tiny", {"small/config.yaml": b"policy: gone"})
    with pytest.raises(CheckpointError, match="config"):
        load_policy("hf:user/tiny/small")
    assert load_policy(str(first.address)).hash == load_policy(folder).hash
    with pytest.raises(CheckpointError, match="holds no policy"):
        load_policy("hf:user/tiny/large")
    with pytest.raises(CheckpointError, match="no revision nine"):
        load_policy("hf:user/tiny@nine")


def test_an_original_checkpoint_is_loaded_from_there(server, golden_dir):
    server.commit("user/original", {"runs/latest.ckpt": (golden_dir / "original_format.ckpt").read_bytes()})
    loaded = load_policy("hf:user/original/runs/latest.ckpt")
    assert loaded.format == "original" and loaded.hash == load_policy(golden_dir / "original_format.ckpt").hash


def test_nothing_is_replaced_unasked(server, folder):
    push(str(folder), "hf:user/tiny")
    before = server.heads["user/tiny"]
    with pytest.raises(ConfigError, match="holds README.md, config.yaml, policy.safetensors already.*overwrite=true"):
        push(str(folder), "hf:user/tiny")
    assert server.heads["user/tiny"] == before
    push(str(folder), "hf:user/tiny", overwrite=True)


def test_what_belongs_to_another_policy_is_refused_before_anything_is_sent(server, folder):
    with pytest.raises(ValueError, match="not for this policy"):
        push(str(folder), "hf:user/tiny", assets=str(ASSETS))
    assert not server.repositories
    with pytest.raises(ConfigError, match="holds neither tuned.json nor schedules"):
        push(str(folder), "hf:user/tiny", assets=str(folder))


def test_a_lerobot_policy_says_what_it_is(server):
    server.commit("user/lero", {"config.json": json.dumps({"type": "diffusion"}).encode(), "model.safetensors": b""})
    with pytest.raises(CheckpointError, match="LeRobot.*diffusion"):
        load_policy("hf:user/lero")


def test_a_missing_repository(server):
    with pytest.raises(CheckpointError, match="no repository user/nowhere.*HF_TOKEN"):
        load_policy("hf:user/nowhere")


def test_without_a_network_what_was_fetched_is_loaded_and_nothing_else(server, folder, monkeypatch):
    push(str(folder), "hf:user/tiny")
    online = load_policy("hf:user/tiny")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    assert load_policy("hf:user/tiny").source == online.source
    with pytest.raises(CheckpointError, match="cannot be reached, and nothing of it has been fetched before"):
        load_policy("hf:user/other")


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"not installed.*bac-workbench\[hub\]"):
        load_policy("hf:user/name")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("checkpoint=a", "to=<an address hf:user/name> is missing"),
        ("checkpoint=a to=hf:u/n weights=emma", "did you mean ema"),
        ("checkpoint=a to=hf:u/n privat=false", "did you mean private"),
    ],
)
def test_wrong_settings_are_named(line, says):
    with pytest.raises(ConfigError, match=says):
        push_checkpoint.settings(line.split())


@pytest.mark.parametrize(("to", "says"), [("user/name", "is no address"), ("hf:user/name/a.ckpt", "names a file")])
def test_a_place_that_is_none_is_refused(to, says):
    with pytest.raises(ConfigError, match=says):
        push(str(BUNDLED), to)
