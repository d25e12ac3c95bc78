"""Checkpoints on the Hugging Face Hub, `hf:user/name[/sub/folder][@revision]`, as folders of its local cache.

The client is `huggingface_hub`; its own settings hold (HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from diffusion_policy.common.config import CheckpointError

PREFIX = "hf:"
FORM = "hf:user/name, hf:user/name/sub/folder or hf:user/name@revision"
#: what is fetched of a folder: policies, what belongs to them, and what tells a policy of LeRobot
_FILES = ("policy.safetensors", "config.yaml", "config.json", "tuned.json", "tuned_schedule.json", "schedules/*.json")
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_ADDRESS = re.compile(
    rf"hf:(?P<repository>{_WORD}/{_WORD})(?P<inside>(?:/{_WORD})*)(?:@(?P<revision>[\w./-]{{1,200}}))?"
)


@dataclass(frozen=True)
class Address:
    """A place on the hub: `inside` is a folder or a `.ckpt` of the repository, '' the whole; `revision` None: main."""

    repository: str
    inside: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        inside = f"/{self.inside}" if self.inside else ""
        return f"{PREFIX}{self.repository}{inside}{f'@{self.revision}' if self.revision else ''}"


def is_address(path: str | Path) -> bool:
    """Whether a checkpoint is named by an address of the hub, and not by a path."""
    return str(path).startswith(PREFIX)


def parse(text: str | Path) -> Address:
    """Raises:
    CheckpointError: it is no address.
    """
    match = _ADDRESS.fullmatch(str(text))
    if match is None:
        raise CheckpointError(f"{str(text)[:200]} is no address on the Hugging Face Hub: use {FORM}")
    return Address(match["repository"], match["inside"].strip("/"), match["revision"])


def client() -> ModuleType:
    """The package `huggingface_hub`.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointError(
            f"addresses {PREFIX}... need the package huggingface_hub, which is not installed ({error}): "
            "pip install 'bac-workbench[hub]', or give a folder"
        ) from error
    return huggingface_hub


def endpoint() -> str | None:
    """Another server than the public one; None: that of huggingface_hub's own settings."""
    return os.environ.get("HF_ENDPOINT") or None


def download(text: str | Path) -> Path:
    """The local folder, or `.ckpt`, that holds what is at an address now. What is there already is not fetched again.

    Its path names the commit. Without a network it is what was fetched last.

    Raises:
        CheckpointError: there is no such thing, or it cannot be fetched; the message says what to do.
    """
    address, hub = parse(text), client()
    single = address.inside.endswith(".ckpt")
    inside = f"{address.inside}/" if address.inside else ""
    patterns = [address.inside] if single else [inside + name for name in _FILES]
    try:
        snapshot = hub.snapshot_download(
            address.repository, revision=address.revision, allow_patterns=patterns, endpoint=endpoint()
        )
    except Exception as error:
        raise explained(error, address) from error
    folder = Path(snapshot) / address.inside
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(
            f"{address} holds no policy: neither policy.safetensors and config.yaml nor, where the address ends with "
            "its name, an original .ckpt"
        )
    return folder


def explained(error: Exception, address: Address) -> Exception:
    """What an error of the client means, as a CheckpointError; an error of another kind as it is."""
    errors = client().errors
    where = f"{address} at {endpoint() or 'the Hugging Face Hub'}"
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{where}: access has to be asked for on the repository's page; then log in (hf auth login)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"there is no repository {address.repository} for you at {endpoint() or 'the Hugging Face Hub'}: check the "
            "name; for a private one log in (hf auth login), or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(
            f"{address.repository} has no revision {address.revision}: use a branch, a tag or the hash of a commit"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return CheckpointError(
            f"{where} cannot be reached, and nothing of it has been fetched before: check the network (behind a proxy, "
            "https_proxy) and HF_HUB_OFFLINE, or fetch it elsewhere and give the folder"
        )
    if isinstance(error, (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled, OSError)):
        return CheckpointError(
            f"{where} cannot be read or written: {(str(error).strip() or type(error).__name__)[:300]}"
        )
    return error
