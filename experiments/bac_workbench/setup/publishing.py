"""A policy on the Hugging Face Hub, with its schedules and its certificate: what `hf:user/name` then loads."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac.native.packing import is_half
from bac.schedule import Schedule
from bac.tuned import FILE, SCHEDULE, Tuned
from diffusion_policy.common import hub
from diffusion_policy.common.checkpoint import LoadedPolicy, load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.policy_files import save_policy

CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """What was uploaded: an address that loads this very commit, the files, and the address of the commit's page."""

    address: hub.Address
    files: tuple[str, ...]
    page: str


def push(
    checkpoint: str, to: str, assets: str | None = None, weights: str = "ema", private: bool = True,
    overwrite: bool = False,
) -> Pushed:  # fmt: skip
    """Uploads a policy in this project's form in one commit, so that no reader meets half of it.

    Args:
        assets: a folder with `schedules/*.json` and `tuned.json` of this policy, such as assets/<task>; None: without.
        private: whether a repository that is not there yet is made for its owner alone.

    Raises:
        ConfigError: there are such files already, a schedule or the certificate is of another policy, or the server
            refuses.
        CheckpointError: the checkpoint cannot be loaded, or `to` is no address.
    """
    address, client = hub.parse(to), hub.client()
    if address.inside.endswith(".ckpt"):
        raise ConfigError(f"to={to} names a file: name a repository or a folder in it")
    loaded = load_policy(checkpoint, weights)
    staging = Path(tempfile.mkdtemp(prefix="bac-push-"))
    try:
        _stage(staging, loaded, None if assets is None else Path(assets), address)
        return _upload(staging, client, address, loaded, private, overwrite)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stage(folder: Path, loaded: LoadedPolicy, assets: Path | None, address: hub.Address) -> None:
    metadata = {"weights": loaded.weights, "source_hash": loaded.hash}
    if loaded.step is not None:
        metadata["step"] = str(loaded.step)
    # No bit is lost: schedules and certificates are of these weights.
    half = all(is_half(value) for name, value in loaded.policy.named_parameters() if not name.startswith("normalizer."))
    save_policy(folder, loaded.policy, loaded.config, metadata, half)
    written = load_policy(folder, loaded.weights)
    if written.hash != loaded.hash:
        raise ConfigError(f"{loaded.source} changes when it is written (hash {written.hash[:12]}): convert it first")
    tuned = None
    schedules: list[str] = []
    if assets is not None:
        tuned, schedules = _tuned(assets, loaded, folder), _schedules(assets, loaded, folder)
        if tuned is None and not schedules:
            raise ConfigError(f"assets={assets} holds neither {FILE} nor schedules/*.json")
    (folder / CARD).write_text(_card(loaded, tuned, schedules, address))


def _tuned(assets: Path, loaded: LoadedPolicy, folder: Path) -> Tuned | None:
    if not (assets / FILE).exists():
        return None
    tuned = Tuned.load(assets / FILE)
    tuned.check(loaded.policy)
    for name in (FILE, SCHEDULE):
        if (assets / name).exists():
            shutil.copyfile(assets / name, folder / name)
    return tuned


def _schedules(assets: Path, loaded: LoadedPolicy, folder: Path) -> list[str]:
    (folder / "schedules").mkdir()
    paths = sorted((assets / "schedules").glob("*.json"))
    for path in paths:
        made = Schedule.load(path).provenance.checkpoint_hash
        if made not in (None, loaded.hash):
            raise ConfigError(f"{path} was made for the weights {made[:12]}, not for {loaded.hash[:12]}: leave it out")
        shutil.copyfile(path, folder / "schedules" / path.name)
    return [path.stem for path in paths]


def _upload(
    staging: Path, client: Any, address: hub.Address, loaded: LoadedPolicy, private: bool, overwrite: bool
) -> Pushed:
    api, repository = client.HfApi(endpoint=hub.endpoint()), address.repository
    files = tuple(sorted(str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file()))
    inside = f"{address.inside}/" if address.inside else ""
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        there = set(api.list_repo_files(repository, revision=address.revision))
        taken = sorted(there & {inside + name for name in files})
        if taken and not overwrite:
            raise ConfigError(
                f"to={address} holds {', '.join(taken[:4])} already: choose another name or folder, or replace what is "
                "there with overwrite=true (older commits keep it)"
            )
        done = api.upload_folder(
            repo_id=repository,
            folder_path=staging,
            path_in_repo=address.inside or None,
            revision=address.revision,
            commit_message=f"Policy {loaded.hash[:12]}",
        )
    except ConfigError:
        raise
    except Exception as error:
        raise hub.explained(error, address) from error
    return Pushed(hub.Address(repository, address.inside, done.oid), files, done.commit_url)


def _card(loaded: LoadedPolicy, tuned: Tuned | None, schedules: list[str], address: hub.Address) -> str:
    """The page of the repository."""
    lines = [
        "---", "library_name: bac-diffusion", "pipeline_tag: robotics", "tags: [diffusion-policy, robotics]", "---", "",
        f"# {address.repository.partition('/')[2]}", "",
        f"A Transformer Diffusion Policy, {loaded.weights.upper()} weights {loaded.hash[:12]}, task "
        f"{loaded.config['task']}.", "",
        "```python", "from diffusion_policy.common.checkpoint import load_policy", "",
        f'loaded = load_policy("{address}")', "```", "",
    ]  # fmt: skip
    if tuned is not None:
        lines += [f"Certificate `{FILE}`: {tuned}.", ""]
    if schedules:
        lines += [f"Schedules: {', '.join(schedules)}.", ""]
    return "\n".join(lines)
