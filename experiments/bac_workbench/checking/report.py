"""check.json: everything a check found; and its place."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bac.profile_source import recording_kind
from bac_workbench.checking.measure import Measured
from bac_workbench.checking.numbers import missed, percentiles
from bac_workbench.checking.subject import Subject
from bac_workbench.checking.verdict import level, limits_of, sentences
from bac_workbench.provenance import environment
from bac_workbench.replacing import refuse_another
from diffusion_policy.common.files import write_json

JSON, HTML = "check.json", "check.html"


def folder_of(subject: Subject) -> Path:
    """Where the report goes."""
    settings = subject.experiment.settings
    if settings.output_dir is not None:
        return Path(settings.output_dir).expanduser()
    return Path(settings.assets_dir).expanduser() / settings.task.name / "check" / subject.folder


def request_of(subject: Subject) -> dict[str, Any]:
    """What a report is of: the same request may be measured again in its place."""
    experiment = subject.experiment
    settings, recordings = experiment.settings, experiment.recordings
    return {
        "checkpoint_hash": experiment.loaded.hash,
        "weights": experiment.loaded.weights,
        "setting": subject.name,
        "schedule": None if subject.schedule is None else subject.schedule.digest,
        "sampler": experiment.sampler_name,
        "runtime": settings.runtime,
        "horizon": settings.horizon,
        "device": experiment.device.type,
        "judged": recording_kind(recordings.digest, recordings.judged),
        "seed": settings.seed,
        **{name: getattr(settings, name) for name in ("n_states", "n_samples", "ddim", "deadline_ms")},
        "limits": settings.limits.to_dict(),
    }


def check_replaceable(folder: Path, request: dict[str, Any], overwrite: bool) -> None:
    """Refuses to replace the report of another request, unless overwrite=true.

    Raises:
        ConfigError: there is one.
    """
    if not overwrite:
        refuse_another(folder / JSON, "request", request, "check")


def report_of(measured: Measured) -> dict[str, Any]:
    """The content of check.json."""
    subject = measured.subject
    experiment, settings = subject.experiment, subject.experiment.settings
    limits, deadline = limits_of(measured), settings.deadline_ms
    return {
        "setting": subject.name,
        "level": level(measured),
        "verdict": sentences(measured, limits),
        "passed": not any(limit.broken for limit in limits),
        "limits": [limit.to_dict() for limit in limits],
        "request": request_of(subject),
        "checkpoint": str(experiment.loaded.source),
        "checkpoint_sampler": experiment.own_sampler_name,
        "schedule": None if subject.schedule is None else subject.schedule.origin,
        "observations": {
            "recording": experiment.recordings.path,
            "judged": experiment.recordings.describe(experiment.recordings.judged),
            "used": measured.n_states,
            "available": measured.available,
        },
        "action": {
            "dimensions": int(experiment.policy.action_dim),
            "positions": int(experiment.policy.n_action_steps),
            **measured.differences.to_dict(),
        },
        "distances": {name: screen.to_dict() for name, screen in measured.screens.items()},
        "ddim": measured.ddim,
        "latency_ms": {
            name: {
                "call": percentiles(item.milliseconds),
                "encoder": percentiles(item.encoder_milliseconds),
                "denoiser": percentiles(np.subtract(item.milliseconds, item.encoder_milliseconds)),
                "calls": len(item.milliseconds),
                "missed": None if deadline is None else missed(item.milliseconds, deadline),
            }
            for name, item in measured.latencies.items()
        },
        "deadline_ms": deadline,
        "notes": measured.notes,
        "provenance": environment(experiment.device, torch.get_num_threads()),
    }


def write_report(folder: Path, report: dict[str, Any]) -> None:
    write_json(folder / JSON, finite(report))


def finite(value: Any) -> Any:
    """The same with None in place of numbers that JSON has not: infinite ratios to nothing."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
