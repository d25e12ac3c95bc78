"""Find the fastest setting that is not worse than the full policy, and prove it: bac tune task=pusht_lowdim

Candidates are timed, screened by their distance from the full policy's actions, rolled out beside it, and tested on
seeds that nothing else has seen, by the margin that you choose. The result, assets/<task>/tuned.json, is what
cache=tuned follows. The same command after an interruption goes on where it stopped. Without a simulator
(observations=<recording>) candidates are only screened, which proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from bac_workbench.settings import check, launch

if TYPE_CHECKING:
    from bac_workbench.tracking.run import Tracker
    from bac_workbench.tuning.tune import Tuning


def main() -> None:
    launch(tune_policy, "tune", __doc__)


def tune_policy(cfg: DictConfig) -> None:
    import torch

    from bac_workbench.console import console, progress_bar
    from bac_workbench.provenance import hardware
    from bac_workbench.setup.experiment import load_experiment
    from bac_workbench.setup.task import has_simulator
    from bac_workbench.tracking.identity import Identity, hardware_tag
    from bac_workbench.tracking.run import Tracker
    from bac_workbench.tuning.beside import beside
    from bac_workbench.tuning.certificate import check_replaceable, request_of
    from bac_workbench.tuning.episodes import open_folder
    from bac_workbench.tuning.progress import TuningProgress
    from bac_workbench.tuning.tune import certify, check_verdicts, measure, prepare, select
    from diffusion_policy.common.lock import locked

    settings = check(cfg, "tune")
    check_verdicts(settings)
    offline = settings.observations is not None or not has_simulator(settings.task)
    experiment = load_experiment(settings, needs_simulator=not offline)
    if not offline:  # a screen writes no certificate
        check_replaceable(experiment)
    request = request_of(experiment)
    console.print(f"task {settings.task.name}, {experiment.loaded}")
    for note in experiment.notes:
        console.print(f"note: {note}", style="yellow")
    folder = open_folder(experiment)
    tags = [settings.runtime, hardware_tag(hardware(experiment.device))]
    identity = Identity.of(settings.task.name, "tune", f"tune margin {settings.margin:g}", tags)
    with Tracker(settings.wandb, identity, experiment.to_dict(), console.print) as run:
        with locked(folder, f"tuning of {settings.task.name}"), progress_bar() as bar:
            run.start()
            progress, say = TuningProgress(bar), bar.console.print
            tuning = prepare(experiment, say)
            say(
                f"device {experiment.device}, {torch.get_num_threads()} threads, runtime "
                f"{tuning.experiment.settings.runtime}, {len(tuning.candidates.named)} candidates, "
                f"margin {settings.margin:g}"
            )
            measure(tuning, folder, progress, say)
            if not offline:
                select(tuning, folder, progress, say, beside())
                certify(tuning, folder, progress, say, beside())
        if offline:
            show_screen(tuning, folder, run)
        else:
            write_certificate(tuning, request, run)


def show_screen(tuning: Tuning, folder, run: Tracker) -> None:
    from bac_workbench.console import console
    from bac_workbench.tracking.tables import row_table
    from bac_workbench.tuning.certificate import rows_of
    from bac_workbench.tuning.report import screen_table
    from diffusion_policy.common.files import write_json

    rows = rows_of(tuning)
    write_json(folder / "screen.json", {"states": tuning.states, "candidates": rows})
    run.log_media(lambda wandb: {"candidates": row_table(wandb, rows)})
    console.print(screen_table(rows, f"{tuning.experiment.settings.task.name}: a screen, not a proof"))
    console.print(
        f"screened on {tuning.states}. A screen proves nothing: only episodes, in a simulator or on the robot, say "
        f"whether a policy is worse. Written: {folder / 'screen.json'}"
    )


def write_certificate(tuning: Tuning, request: dict, run: Tracker) -> None:
    from bac_workbench.console import console
    from bac_workbench.tracking.tables import row_table, tuned_summary
    from bac_workbench.tuning.certificate import certificate, certificate_path
    from bac_workbench.tuning.picture import plot_tuned
    from bac_workbench.tuning.report import markdown, tuned_table, verdict_lines
    from diffusion_policy.common.files import atomic_path
    from diffusion_policy.common.lock import locked

    tuned, path = certificate(tuning, request), certificate_path(tuning.experiment)
    with locked(path.parent, f"writing {path.name}"):
        tuned.save(path)
        plot_tuned(tuned, path.with_suffix(".png"))
        with atomic_path(path.with_suffix(".md")) as temporary:
            temporary.write_text(markdown(tuned), encoding="utf-8")
    run.summarise(tuned_summary(tuned.method, tuned.claim, tuning.times[tuning.chosen]))
    run.log_media(
        lambda wandb: {
            "candidates": row_table(wandb, tuned.details["candidates"]),
            "picture": wandb.Image(str(path.with_suffix(".png"))),
        }
    )
    console.print(tuned_table(tuned.details["candidates"], f"{tuned.details['task']}, {tuned.details['hardware']}"))
    for line in verdict_lines(tuned):
        console.print(line)
    console.print(f"certificate: {path}, {path.with_suffix('.md').name}, {path.with_suffix('.png').name}")
    console.print(f"next: bac eval task={tuning.experiment.settings.task.name} cache=tuned runtime={tuned.runtime}")
