"""Getting a checkpoint that the original project publishes. Checksums are not: the first download records its own."""

from __future__ import annotations

import re
import urllib.request
from html import unescape
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote, unquote

from bac_workbench.downloads.fetch import TIMEOUT_S, Progress, fetch, file_sha256, require_url
from diffusion_policy.common.checkpoint import LoadedPolicy, load_policy
from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.files import atomic_path
from diffusion_policy.common.lock import locked_output
from diffusion_policy.dataset.replay_buffer import DatasetError

LATEST, BEST, LIST = "latest.ckpt", "best", "list"
_BEST_NAME = re.compile(r"epoch=(\d+)-test_mean_score=(\d+\.\d+)\.ckpt")
_INDEX_BYTES = 1 << 20


def published_names(url: str) -> list[str]:
    """The checkpoints in a folder of the server, from its HTML index.

    Raises:
        DatasetError: the server cannot be reached, or shows no checkpoints.
    """
    require_url(url)
    try:
        with urllib.request.urlopen(f"{url}/", timeout=TIMEOUT_S) as response:
            html = response.read(_INDEX_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException, ValueError) as error:
        raise DatasetError(
            f"cannot list {url}/ ({getattr(error, 'reason', error)}). Check the network and, behind a proxy, "
            "https_proxy"
        ) from error
    links = [unquote(unescape(link)).removeprefix("./") for link in re.findall(r"""href=["']([^"']+)["']""", html)]
    names = sorted({link for link in links if link.endswith(".ckpt") and "/" not in link})
    if not names:
        raise DatasetError(f"{url}/ lists no checkpoints: look there with a browser, and give url= and name=")
    return names


def has_score(name: str) -> bool:
    """Whether a checkpoint's name tells its score."""
    return _BEST_NAME.fullmatch(name) is not None


def best_name(names: list[str]) -> str:
    """The one with the highest score in its name; among equals, the one trained longest."""
    scored = [(float(match[2]), int(match[1]), name) for name in names if (match := _BEST_NAME.fullmatch(name))]
    if not scored:
        raise DatasetError(f"no name tells a score ({', '.join(names)}): choose one with name=")
    return max(scored)[2]


def record_of(path: Path) -> Path:
    """Where the checksum of a checkpoint is recorded, in the form that `sha256sum -c` reads."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Path) -> str | None:
    """The checksum that the first download recorded, None if there was none.

    Raises:
        DatasetError: the record is damaged.
    """
    record = record_of(path)
    if not record.exists():
        return None
    digest = record.read_bytes()[:64].decode("ascii", "replace")
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise DatasetError(f"{record} is damaged: delete it, and the next download records the checksum again")
    return digest


def get_checkpoint(
    url: str, folder: Path, name: str = LATEST, sha256: str | None = None, on_progress: Progress | None = None
) -> tuple[LoadedPolicy, str]:
    """Downloads `<url>/<name>` to `folder` and verifies it; one that is there is only verified.

    The file appears under its name complete, with the right checksum and loadable, or not at all; until then it is
    `<name>.unverified`, and `<name>.unverified.part` while it is incomplete. An interrupted download is resumed.

    Args:
        sha256: the checksum that the file must have, instead of the recorded one; it is recorded then.

    Returns:
        The policy in it, and the file's SHA-256.

    Raises:
        DatasetError: it cannot be downloaded, or has another checksum.
        CheckpointError: it cannot be loaded.
    """
    with locked_output(folder / name, f"download of {name}"):
        return _get_checkpoint(url, folder, name, sha256, on_progress)


def _get_checkpoint(
    url: str, folder: Path, name: str, sha256: str | None, on_progress: Progress | None
) -> tuple[LoadedPolicy, str]:
    path = folder / name
    known = recorded_sha256(path)
    here = path if path.exists() else path.with_name(f"{name}.unverified")
    if not here.exists():
        fetch(f"{url}/{quote(name)}", here, on_progress)
    digest, expected = file_sha256(here), sha256 or known
    if expected not in (None, digest):
        raise DatasetError(
            f"{here} is another file than expected (sha256 {digest}, expected {expected}): it is damaged, or the "
            f"server has another one now. Delete it and run the same command again; sha256={digest} accepts it"
        )
    try:
        loaded = load_policy(here)
    except CheckpointError as error:
        raise CheckpointError(f"{error}\nTo download it again, delete {here} and run the same command") from error
    if digest != known:
        with atomic_path(record_of(path)) as temporary:
            temporary.write_text(f"{digest}  {name}\n")
    here.replace(path)
    return loaded, digest
