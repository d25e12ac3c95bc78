"""Profile a policy and write its schedules: bac profile task=pusht_lowdim [sampler=ddim16 ...]"""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from bac_workbench.settings import check, launch
from diffusion_policy.common.config import ConfigError

if TYPE_CHECKING:
    from bac_workbench.settings.methods import Method
    from bac_workbench.setup.experiment import Experiment


def main() -> None:
    launch(profile_policy, "profile_blocks", __doc__)


def profile_policy(cfg: DictConfig) -> None:
    from bac_workbench.caching.schedules import schedule_for
    from bac_workbench.console import console
    from bac_workbench.profiling.pictures import pictures
    from bac_workbench.profiling.profiles import profile_for, replace_profile
    from bac_workbench.profiling.request import THOROUGH
    from bac_workbench.provenance import hardware
    from bac_workbench.settings.methods import parse_method
    from bac_workbench.setup.experiment import load_experiment
    from bac_workbench.tracking.identity import Identity, hardware_tag
    from bac_workbench.tracking.run import Tracker

    settings = check(cfg, "profile_blocks").on_chosen_dataset()
    methods = [parse_method(text) for text in settings.schedules]
    experiment = load_experiment(settings, needs_simulator=False)  # a stored profile needs none, a data set neither
    console.print(f"task {settings.task.name}, {experiment.loaded}, {experiment.sampler_line}")
    check_methods(experiment, methods)
    printed: set[str] = set()

    def say(line: str) -> None:
        if line not in printed:  # every schedule names the same profile
            console.print(line)
        printed.add(line)

    tags = [experiment.sampler_name, hardware_tag(hardware(experiment.device))]
    identity = Identity.of(settings.task.name, "profile", f"profile {experiment.sampler_name}", tags)
    with Tracker(settings.wandb, identity, experiment.to_dict(), console.print) as run:
        run.start()
        profile, folder = (
            replace_profile(experiment, say) if settings.overwrite else profile_for(experiment, say, THOROUGH)
        )
        for method in methods:
            schedule = schedule_for(experiment.with_cache(method.cache), say, THOROUGH)
            if schedule is not None:
                updates, all_updates = schedule.update_count, schedule.steps * len(schedule.blocks)
                console.print(f"{method.label}: {updates} block updates of {all_updates}")
                run.summarise({f"block_updates/{method.label}": updates})
        drawn = {key: path for key, path in pictures(profile, folder).items() if path.is_file()}
        run.log_media(lambda wandb: {key: wandb.Image(str(path)) for key, path in drawn.items()})
    console.print(f"profile, schedules and figures: {folder}")


def check_methods(experiment: Experiment, methods: list[Method]) -> None:
    """Before anything is measured: every schedule is possible, on the sampler that is profiled.

    Raises:
        ConfigError: one is not.
    """
    for method in methods:
        if method.sampler:
            raise ConfigError(
                f"schedules: {method.label}@... names a sampler; what is profiled is set by sampler=, "
                f"and is {experiment.sampler_name}"
            )
        if method.label == "tuned":
            raise ConfigError("schedules: tuned is a certificate, which bac tune writes; there is nothing to profile")
        method.cache.check(experiment.blocks, experiment.steps)
