"""Where the configuration and what this project ships are: in a checkout at its root, in a wheel inside this package.

Results, assets, data and downloaded checkpoints belong to the working directory. What is not there is read from what is
shipped; nothing is ever written there.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def checkout_of(package: Path) -> Path | None:
    """The root of the checkout that holds this package, None where it was installed from a wheel."""
    root = package.parents[1]
    return root if package.parent.name == "experiments" and (root / "config" / "eval.yaml").is_file() else None


CHECKOUT = checkout_of(PACKAGE)
#: holds config/, assets/ and checkpoint/
SHIPPED = CHECKOUT or PACKAGE / "shipped"
CONFIG = SHIPPED / "config"


def shipped(path: str | Path) -> Path:
    """`path` as seen from the working directory; if nothing is there but this project ships it, where it is shipped."""
    path = Path(path).expanduser()
    return SHIPPED / path if not path.exists() and (SHIPPED / path).exists() else path


def roots(path: str | Path) -> list[Path]:
    """Where a folder is looked for, in this order: as seen from the working directory, then where it is shipped."""
    path = Path(path).expanduser()
    return [path] if path.resolve() == (SHIPPED / path).resolve() else [path, SHIPPED / path]


def not_in_the_wheel(path: str | Path) -> str:
    """A sentence for messages about a checkpoint that is not here: where it may be had. Empty in a checkout, which has all."""
    parts = Path(path).parts
    if CHECKOUT is not None or parts[:1] != ("checkpoint",):
        return ""
    return (
        f"A wheel ships {', '.join(bundled())} alone: a checkout of this project has the others, and this one, if there "
        f"is one, is its folder {Path(*parts[:2])}. Copy that folder here, or give its path with checkpoint="
    )


def bundled() -> list[str]:
    """Tasks whose trained policy is shipped."""
    return sorted(path.parents[1].name for path in (SHIPPED / "checkpoint").glob("*/ddpm100/policy.safetensors"))
