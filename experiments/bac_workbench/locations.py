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


def only_in_a_checkout(path: str | Path) -> str:
    """For messages: where to get a trained policy that this project has but no wheel holds; else empty."""
    parts = Path(path).parts
    if CHECKOUT is not None or parts[:1] != ("checkpoint",) or not (SHIPPED / "assets" / "/".join(parts[1:2])).is_dir():
        return ""
    return (
        "Its trained policy is in this project's repository and not in the installed wheel, which it would make large: "
        f"copy the folder {Path(*parts[:2])} from there to here, or name it with checkpoint="
    )
