"""docs/reference/configuration.md: every setting of every command, from the schemas and the files in config/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic.fields import FieldInfo

from bac_workbench.settings.kinds import Section
from bac_workbench.settings.schema import SCHEMAS, fields, kind_of, schema_of, section_of
from docs.generate.stored import DOCS, MARK, ROOT

PAGE = DOCS / "reference" / "configuration.md"
CONFIG = ROOT / "config"
MEANINGS = yaml.safe_load((Path(__file__).parent / "meanings.yaml").read_text(encoding="utf-8"))
# How the command is typed, by the name of its schema.
COMMANDS = {
    "eval": "bac eval",
    "benchmark": "bac benchmark",
    "compare": "bac compare",
    "dashboard": "bac dashboard",
    "check": "bac check",
    "report": "bac report",
    "reproduce": "bac reproduce",
    "tune": "bac tune",
    "profile_blocks": "bac profile",
    "figures": "bac figures",
    "stability": "bac stability",
    "calibrate": "bac calibrate",
    "serve": "bac serve",
    "train": "bac train",
    "make_demos": "bac demos",
    "collect": "bac collect",
    "convert_actions": "bac data convert-actions",
    "convert_checkpoint": "bac checkpoint convert",
    "push_checkpoint": "bac checkpoint push",
    "inspect_data": "bac data inspect",
    "download_data": "bac data download",
    "download_checkpoint": "bac checkpoint download",
}
# Groups that several commands or many files share are listed once, with the files that set them.
SHARED = {
    "launcher": (
        "How the cells of a sweep (`-m`) run, and the rollouts of `bac tune`: `launcher=joblib` takes the file "
        "`config/launcher/joblib.yaml`; see [Sweep over settings and seeds](../howto/sweeps.md). Settings of the "
        "launcher itself are written `hydra.launcher.<setting>=`.",
        ("launcher/joblib.yaml",),
    ),
    "cache": ("The caching method. `cache=bac` takes the file `config/cache/bac.yaml`.", ("cache/bac.yaml",)),
    "sampler": (
        "The denoising loop. `sampler=ddim16` takes the file `config/sampler/ddim16.yaml`; the default, `checkpoint`, "
        "is what the checkpoint's file says. Options that a solver does not have are refused.",
        ("sampler/base/options.yaml",),
    ),
    "objective": (
        "What training minimises. `objective=condition` takes the file `config/objective/condition.yaml`.",
        ("objective/condition.yaml", "objective/frozen_encoder.yaml"),
    ),
    "dataset": (
        "A data set in place of the task's own. `dataset=lerobot dataset.path=...` takes the file "
        "`config/dataset/lerobot.yaml`; the default, `task`, is what the task's file says.",
        ("dataset/lerobot.yaml",),
    ),
    "profile": ("The observations and noise that a profile is measured on.", ("profile_blocks.yaml", "eval.yaml")),
    "wandb": ("Logging to [Weights & Biases](../howto/wandb.md); needs the extra `wandb`.", ("eval.yaml",)),
    "task": (
        "What a task's file sets: `task=pusht_lowdim` takes `config/task/pusht_lowdim.yaml`. No task has all of them, "
        "and each has its own values.",
        (),
    ),
}


def yaml_lines(name: str) -> Iterator[tuple[str, str, str]]:
    """(dotted name, value as it is written, comment) of every setting in a file of config/."""
    path: list[tuple[int, str]] = []
    for line in (CONFIG / name).read_text(encoding="utf-8").splitlines():
        found = re.match(r"^( *)(\w+):(?: +([^#]*))?(?:#(.*))?$", line)
        if found is None:
            continue
        indent, key, written, comment = len(found[1]), found[2], (found[3] or "").strip(), (found[4] or "").strip()
        while path and path[-1][0] >= indent:
            path.pop()
        path.append((indent, key))
        yield ".".join(part for _, part in path), written, comment


def written_settings(names: tuple[str, ...], group: str = "") -> dict[str, tuple[str, str]]:
    """Name -> (default, comment); a file of a group such as cache/bac.yaml has its settings below the group's name."""
    known: dict[str, tuple[str, str]] = {}
    for name in names:
        for key, written, comment in yaml_lines(name):
            full = key if key.split(".")[0] == group or not group else f"{group}.{key}"
            known.setdefault(full, (written, comment))
    return known


def meaning(name: str, comment: str) -> str:
    """From meanings.yaml by the whole name, else the comment in config/, else from meanings.yaml by the last part."""
    return MEANINGS["by_name"].get(name) or comment or MEANINGS["by_last_part"].get(name.split(".")[-1], "")


def row(name: str, field: FieldInfo, known: dict[str, tuple[str, str]], default: bool) -> str:
    written, comment = known.get(name, ("", ""))
    allowed = kind_of(field).allowed.format(name="").replace("=true", "true").replace("=false", "false")
    comment = meaning(name, comment)
    cells = [f"`{name}`", *([f"`{written}`" if written else ""] if default else []), allowed, comment]
    return f"| {' | '.join(map(escaped, cells))} |"


def escaped(cell: str) -> str:
    """Text of a Markdown table: no bar ends the cell, and outside of code no <word> is taken for HTML."""
    pieces = cell.replace("|", "\\|").split("`")
    return "`".join(piece if number % 2 else piece.replace("<", "&lt;") for number, piece in enumerate(pieces))


def settings_table(listed: list[tuple[str, FieldInfo]], known: dict[str, tuple[str, str]], default: bool = True) -> str:
    columns = ["setting", *(["default"] if default else []), "allowed", "meaning"]
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return "\n".join([*lines, *(row(name, field, known, default) for name, field in listed)])


def present(schema: type[Section], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    """All values, without earlier names that are only known to be refused: what is allowed of them is another name."""
    return [item for item in fields(schema, prefix) if not kind_of(item[1]).allowed.startswith("the name ")]


def own_settings(schema: type[Section]) -> list[tuple[str, FieldInfo]]:
    """The values of a command, without those of shared groups."""
    return [(name, field) for name, field in present(schema) if not shared_group(schema, name)]


def shared_group(schema: type[Section], name: str) -> bool:
    top = name.split(".")[0]
    return top in SHARED and section_of(schema.model_fields[top]) is not None


def command_section(command: str) -> str:
    schema = schema_of(command)
    file = CONFIG / f"{command}.yaml"
    known = written_settings((file.name,)) if file.exists() else {}
    groups = [name for name, field in schema.model_fields.items() if name in SHARED and section_of(field) is not None]
    links = ", ".join(f"[`{name}`](#{name})" for name in groups)
    parts = [f"## {COMMANDS[command]}"]
    if file.exists():
        parts.append(f"Defaults: `config/{file.name}`." + (f" Groups: {links}." if links else ""))
    parts.append(settings_table(own_settings(schema), known, default=file.exists()))
    return "\n\n".join(parts)


def group_section(group: str) -> str:
    description, files = SHARED[group]
    schemas = [schema_of(command) for command in SCHEMAS]
    section = next(
        found
        for schema in schemas
        if group in schema.model_fields and (found := section_of(schema.model_fields[group])) is not None
    )
    table = settings_table(present(section, f"{group}."), written_settings(files, group), default=bool(files))
    return "\n\n".join([f"## {group}", description, table])


INTRODUCTION = """
# Configuration

Every setting of every command, with its default and what is allowed. Settings are written `name=value` on the command
line:

```bash
bac eval task=pusht_lowdim cache=bac cache.budget=7 sampler=ddim16 seed=1
```

Every value is checked before anything is loaded or written. Wrong ones are listed together, each with what is allowed.
`null` means *none*. A list is written `[1,28]`, a path with `=` or `,` in two kinds of quotes:
`'checkpoint="epoch=0650.ckpt"'`. A default such as `${task.checkpoint}` is taken from another setting.
`bac <command> --help` prints the same on the command line."""


def page() -> str:
    sections = [*map(command_section, COMMANDS), *map(group_section, SHARED)]
    return "\n\n".join([MARK + INTRODUCTION, *sections]) + "\n"


def pages() -> dict[Path, str]:
    missing = set(SCHEMAS) ^ set(COMMANDS)
    if missing:
        raise KeyError(f"docs/generate/configuration.py and the schemas differ in the commands {sorted(missing)}")
    return {PAGE: page()}
