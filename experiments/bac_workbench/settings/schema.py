"""Finding a setting in the schema of its command, and the words for what is wrong with it."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bac_workbench.settings.kinds import Kind, Section, some
from bac_workbench.settings.names import present_name

# Imported when asked for: a command about data needs nothing of evaluation.
SCHEMAS = {
    "eval": "evaluation.Eval",
    "benchmark": "benchmark.Benchmark",
    "compare": "comparing.Compare",
    "dashboard": "comparing.Dashboard",
    "check": "checking.Check",
    "inspect_data": "data.InspectData",
    "report": "reporting.Report",
    "reproduce": "reproducing.Reproduce",
    "tune": "tuning.Tune",
    "profile_blocks": "profiling.ProfileBlocks",
    "figures": "figures.Figures",
    "stability": "stability.Stability",
    "calibrate": "calibration.Calibrate",
    "serve": "serving.Serve",
    "train": "training.Train",
    "make_demos": "data.MakeDemos",
    "collect": "collection.Collect",
    "convert_actions": "data.ConvertActions",
    "convert_checkpoint": "data.ConvertCheckpoint",
    "push_checkpoint": "data.PushCheckpoint",
    "download_data": "data.DownloadData",
    "download_checkpoint": "data.DownloadCheckpoint",
}
LONGEST = 80  # characters of a value that are shown
AT_MOST = 12  # wrong settings that are listed


def schema_of(command: str) -> type[Section]:
    module, name = SCHEMAS[command].split(".")
    return getattr(importlib.import_module(f"bac_workbench.settings.{module}"), name)


def section_of(field: FieldInfo) -> type[Section] | None:
    """The schema of what is below a setting; None for a value."""
    for part in (field.annotation, *get_args(field.annotation)):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def kind_of(field: FieldInfo) -> Kind | None:
    return next((item for item in reversed(field.metadata) if isinstance(item, Kind)), None)


def locate(schema: type[Section], parts: Iterable[str | int]) -> tuple[list[str], FieldInfo | None]:
    """How far `parts` lead into the schema, and the field there.

    What follows is inside a value, such as an index of a list.
    """
    path: list[str] = []
    field, section = None, schema
    for part in parts:
        if section is None or part not in section.model_fields:
            break
        field = section.model_fields[part]
        section = section_of(field)
        path.append(part)
    return path, field


def field_at(schema: type[Section], key: str) -> FieldInfo | None:
    parts = key.split(".")
    path, field = locate(schema, parts)
    return field if path == parts else None


def fields(schema: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All values, by their dotted names."""
    for name, field in schema.model_fields.items():
        section = section_of(field)
        if section is None:
            yield prefix + name, field
        else:
            yield from fields(section, f"{prefix}{name}.")


def as_typed(value: Any) -> str:
    """A value as it is written on a command line."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, (list, tuple)):
        text = f"[{','.join(as_typed(item) for item in value)}]"
    elif isinstance(value, dict):
        text = "{" + ",".join(f"{key}:{as_typed(item)}" for key, item in value.items()) + "}"
    else:
        text = str(value)
    text = re.sub(r"[\x00-\x1f\x7f]", lambda match: repr(match.group())[1:-1], text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def meant(word: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """'; did you mean ...?', or nothing."""
    by_lower = {str(item).lower(): str(item) for item in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, 1, cutoff)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def near_keys(key: str, known: Sequence[str]) -> list[str]:
    """Settings that a wrong name may stand for, the likeliest first; at most three."""
    above, _, last = key.rpartition(".")
    endings = {item: item.rpartition(".")[2] for item in dict.fromkeys(known)}
    siblings = {ending: item for item, ending in endings.items() if item.rpartition(".")[0] == above}
    near = [siblings[ending] for ending in difflib.get_close_matches(last, siblings, 1, 0.6)]
    near = near or [item for item, ending in endings.items() if ending == last]
    near = near or [
        item
        for ending in difflib.get_close_matches(last, sorted(set(endings.values())), 1, 0.8)
        for item in endings
        if endings[item] == ending
    ]
    near = near or difflib.get_close_matches(key, endings, 1, 0.85)
    return sorted(near, key=lambda item: item.count("."))[:3]


def unknown(key: str, known: Sequence[str], help_command: str) -> str:
    if (name := present_name(key)) is not None:
        return f"this setting is called {name} now"
    near = near_keys(key, known)
    hint = f"did you mean {some(near)}?" if near else f"{help_command} lists all settings"
    return f"unknown setting {key}; {hint}"


def field_problems(schema: type[Section], values: dict[str, Any]) -> dict[str, str]:
    """Name -> what is wrong with it, of all `values` (nested) that are wrong by themselves.

    Absent ones are not judged.
    """
    try:
        schema.model_validate(values)
    except ValidationError as error:
        errors = [item for item in error.errors(include_url=False, include_context=False) if item["type"] != "missing"]
    else:
        errors = []
    problems: dict[str, str] = {}
    for error in errors:
        path, field = locate(schema, error["loc"])
        name = ".".join(path)
        if name in problems:
            continue
        section, kind = section_of(field), kind_of(field)
        if section is not None:
            problems[name] = group_problem(name, field)
        else:
            value = inside(values, [*path, *(part for part in error["loc"][len(path) :] if isinstance(part, int))])
            item = (
                ""
                if isinstance(inside(values, path), str) or value == inside(values, path)
                else f"{as_typed(value)} is none; "
            )
            problems[name] = f"{item}use {kind.allowed.format(name=name)}{meant(as_typed(value), kind.choices)}"
    for name, field in fields(schema):
        kind, value = kind_of(field), inside(values, name.split("."))
        if kind.text and kind.null and value in ("None", "none") and name not in problems:
            problems[name] = f"write {name}=null for none"
    return problems


def group_problem(name: str, field: FieldInfo) -> str:
    below = [f"{name}.{item}=..." for item in section_of(field).model_fields]
    return f"this is a group of settings: use {some(below[:4])}"


def inside(values: Any, parts: Sequence[str | int]) -> Any:
    """values[part][part]...; None where there is nothing."""
    for part in parts:
        if isinstance(part, int):
            if not isinstance(values, list) or part >= len(values):
                return None
            values = values[part]
        elif not isinstance(values, dict) or part not in values:
            return None
        else:
            values = values[part]
    return values


def report(problems: Sequence[str]) -> str:
    """All wrong settings, each on its line, on one screen."""
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} settings are wrong"]
    lines += [f"  {problem}" for problem in problems[:AT_MOST]]
    if len(problems) > AT_MOST:
        lines.append(f"  and {len(problems) - AT_MOST} more")
    return "\n".join(lines)
