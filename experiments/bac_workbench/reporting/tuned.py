"""Which methods `bac tune` chose, from the certificates among the assets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bac.errors import UserError
from bac.tuned import Tuned
from bac_workbench.locations import roots
from bac_workbench.reporting.names import split_key
from diffusion_policy.common.config import ConfigError


def tuned_methods(assets_dir: Path, tasks: Iterable[str]) -> dict[tuple[str, str], str]:
    """(task, checkpoint hash) -> key of the chosen method, as rows are looked up.

    Raises:
        ConfigError: a certificate is damaged.
    """
    found = {}
    for task in tasks:
        for root in roots(assets_dir):
            path = root / task / "tuned.json"
            if path.exists():
                try:
                    tuned = Tuned.load(path)
                except (UserError, OSError) as error:
                    raise ConfigError(str(error)) from error
                found.setdefault((task, tuned.identity.checkpoint_hash), "@".join(split_key(tuned.method)))
    return found
