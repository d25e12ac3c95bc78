"""Writes a report's folder: report.html, report.md, figures/, and report.json, which says what it is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bac_workbench.replacing import ADVICE, refuse_another
from bac_workbench.reporting.content import parts_of
from bac_workbench.reporting.evidence import evidence_of
from bac_workbench.reporting.markdown import summary
from bac_workbench.reporting.names import TITLES
from bac_workbench.reporting.page import page
from bac_workbench.reporting.pictures import FORMATS, pictures_behind, pictures_of
from bac_workbench.reporting.studies import read_studies
from bac_workbench.reporting.tuned import tuned_methods
from bac_workbench.reporting.videos import with_room
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.files import atomic_path, write_json

HTML, MARKDOWN, DESCRIPTION, FIGURES = "report.html", "report.md", "report.json", "figures"


def write_report(folders: Sequence[Path], settings: dict[str, Any], say: Callable[[str], None] = print) -> Path:
    """Reads, draws and writes everything.

    Args:
        folders: of evaluations or of kept results, at any depth.
        settings: of `settings.reporting.Report`.

    Returns:
        The folder of the report.

    Raises:
        ConfigError: there is nothing to report, a file is damaged, or the folder holds something else.
    """
    output = folders[0] / "report" if settings["output_dir"] is None else Path(settings["output_dir"]).expanduser()
    assets = Path(settings["assets_dir"])
    asked = {
        "folders": [str(folder) for folder in folders],
        **{name: value for name, value in settings.items() if name not in ("overwrite", "output_dir", "pictures")},
    }
    before = check_folder(output, asked, settings["overwrite"])
    tasks = {*TITLES, *(path.name for path in assets.glob("*") if path.is_dir())}
    studies, left_out = read_studies(folders, settings["margin"], tuned_methods(assets, sorted(tasks)))
    evidence = evidence_of(studies, folders, assets)
    videos, no_room = with_room(studies, settings["videos_mb"])
    parts = parts_of(studies, evidence, videos, no_room, settings["videos_mb"])
    output.mkdir(parents=True, exist_ok=True)
    drawn = [(name, write) for study in studies for name, write in pictures_of(study)]
    drawn += [(name, write) for item in evidence for name, write in pictures_behind(item)]
    names = [f"{FIGURES}/{name}.{ending}" for name, _ in drawn for ending in FORMATS] if settings["pictures"] else []
    write_json(output / DESCRIPTION, {"settings": asked, "files": [HTML, MARKDOWN, *names]})
    for stale in set(before) - set(names) - {HTML, MARKDOWN}:
        (output / stale).unlink(missing_ok=True)
    write_text(output / HTML, page(studies, parts, left_out))
    say(f"page: {output / HTML} ({(output / HTML).stat().st_size / 1e6:.1f} MB)")
    write_text(output / MARKDOWN, summary(studies, parts, settings["pictures"], left_out))
    say(f"summary: {output / MARKDOWN}")
    if settings["pictures"]:
        (output / FIGURES).mkdir(exist_ok=True)
        for name, write in drawn:
            write(*(output / FIGURES / f"{name}.{ending}" for ending in FORMATS))
        say(f"pictures: {output / FIGURES}, {len(drawn)} figures as {' and '.join(FORMATS)}")
    for folder, reason in left_out.items():
        say(f"left out: {folder}: {reason}")
    return output


def check_folder(output: Path, asked: dict[str, Any], overwrite: bool) -> list[str]:
    """The files of an earlier report of the same folders, relative to `output`.

    Raises:
        ConfigError: there are files of something else, or what describes them is damaged.
    """
    path = output / DESCRIPTION
    if not path.exists():
        there = [name for name in (HTML, MARKDOWN) if (output / name).exists()]
        if there and not overwrite:
            raise ConfigError(f"{output / there[0]} is there, and nothing says what it is of: {ADVICE}")
        return []
    if not overwrite:
        refuse_another(path, "settings", asked, "report")
    try:
        files = [str(name) for name in json.loads(path.read_bytes())["files"]]
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        if overwrite:
            return []
        raise ConfigError(f"{path} is damaged ({error}): {ADVICE}") from error
    own = [name for name in files if name in (HTML, MARKDOWN) or is_picture(name)]
    return own


def is_picture(name: str) -> bool:
    """Whether a name of report.json is one of figures/, so that nothing else is ever removed."""
    folder, _, file = name.partition("/")
    return folder == FIGURES and "/" not in file and "\\" not in file and file.endswith(tuple(f".{e}" for e in FORMATS))


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
