"""Turn relative into absolute actions in robomimic's data: bac data convert-actions task=can_ph [n_workers=8 ...]

Reads the file with relative actions (input=data/robomimic/datasets/can/ph/image.hdf5) and writes the one that
the task trains on (output=.../image_abs.hdf5), in the simulator, and prints what the absolute actions of every
demonstration do. The same command after an interruption goes on where it stopped. evaluate=false only converts,
which is much faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from bac_workbench.settings import check, launch
from diffusion_policy.common.config import ConfigError

if TYPE_CHECKING:
    from diffusion_policy.demos.absolute_actions import Conversion


def main() -> None:
    launch(convert, "convert_actions", __doc__)


def convert(cfg: DictConfig) -> None:
    from bac_workbench.console import console, progress_bar
    from diffusion_policy.dataset.robomimic_actions import delta_path
    from diffusion_policy.demos.absolute_actions import convert_actions

    settings = check(cfg, "convert_actions")
    source, output = Path(settings.input or delta_path(settings.output)), Path(settings.output)
    if source == output:
        raise ConfigError(f"output={output} would be written over its own input: choose a name that ends with _abs")
    with progress_bar() as bar:
        job = bar.add_task("demonstrations", total=None)

        def on_demo(conversion: Conversion, total: int) -> None:
            bar.console.print(str(conversion))
            bar.update(job, advance=1, total=total)

        conversions = convert_actions(
            settings.task.robomimic_task, source, output, settings.n_workers, settings.evaluate, on_demo
        )
    console.print(f"{output}: absolute actions of {len(conversions)} demonstrations")
    if settings.evaluate:
        largest = [max(values) for values in zip(*(conversion.absolute_error for conversion in conversions))]
        succeeded = sum(conversion.success for conversion in conversions)
        console.print(
            f"a step ends at most {1000 * largest[0]:.3f} mm and {largest[1]:.5f} rad from the recording; "
            f"{succeeded} of {len(conversions)} replays succeed"
        )
