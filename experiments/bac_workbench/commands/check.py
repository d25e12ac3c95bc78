"""How far a faster setting is from the full policy, on recordings that it has not seen: a report to trust.

    bac check checkpoint=latest.ckpt observations=data.hdf5 cache=bac cache.budget=10 output=peg deadline_ms=50
    bac check checkpoint=latest.ckpt observations=data.hdf5 schedule=bac_s10.json limits.energy=0.1 limits.p99_ms=50
    bac check task=pusht_lowdim observations=lerobot:datas/mine cache=tuned

Writes check.html and check.json: the error of the actions beside the policy's own spread, their bias and jitter,
distances, times, and DDIM that takes equally long. The last share of the episodes (held_out=) is judged on; a
schedule is made from the others. The exit status is 3 where a stated limit is exceeded, 0 where none is.
"""

from __future__ import annotations

from omegaconf import DictConfig

from bac_workbench.settings import check, launch

LIMIT_EXCEEDED = 3


def main() -> None:
    launch(check_setting, "check", __doc__)


def check_setting(cfg: DictConfig) -> None:
    from bac_workbench.checking.measure import measure, steps_of_work
    from bac_workbench.checking.page import page
    from bac_workbench.checking.report import (
        HTML,
        JSON,
        check_replaceable,
        folder_of,
        report_of,
        request_of,
        write_report,
    )
    from bac_workbench.checking.subject import subject_of
    from bac_workbench.checking.verdict import check_bounds
    from bac_workbench.console import console, progress_bar
    from bac_workbench.evaluation.folder import open_output_dir
    from bac_workbench.setup.experiment import load_experiment
    from diffusion_policy.common.files import atomic_path
    from diffusion_policy.common.lock import locked

    settings = check(cfg, "check")
    experiment = load_experiment(settings, needs_simulator=False)
    check_bounds(settings.limits, experiment.policy.action_dim)
    console.print(f"{experiment.loaded}, {experiment.sampler_line}")
    subject = subject_of(experiment, console.print)
    folder = folder_of(subject)
    check_replaceable(folder, request_of(subject), settings.overwrite)
    judged = experiment.recordings.describe(experiment.recordings.judged)
    console.print(f"checking {subject.name} on {judged}, device {experiment.device}")
    with locked(open_output_dir(experiment, folder), f"check of {subject.name}"):
        with progress_bar() as bar:
            jobs = {name: bar.add_task(name, total=total) for name, total in steps_of_work(subject).items()}
            measured = measure(subject, bar.console.print, lambda name, done: bar.advance(jobs[name], done))
        report = report_of(measured)
        html = page(measured, report)
        write_report(folder, report)
        with atomic_path(folder / HTML) as path:
            path.write_text(html, encoding="utf-8")
    for note in measured.notes:
        console.print(f"note: {note}", style="yellow")
    for line in report["verdict"]:
        console.print(line, markup=False)
    console.print(f"report: {folder / HTML}, {folder / JSON}")
    if not report["passed"]:
        raise SystemExit(LIMIT_EXCEEDED)
