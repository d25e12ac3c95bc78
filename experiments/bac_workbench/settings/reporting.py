"""Settings of report, beside the folders."""

from __future__ import annotations

from bac_workbench.settings.kinds import Boolean, NotNegative, Section, number
from bac_workbench.settings.kinds import Path as PathText
from bac_workbench.settings.task import PathOrNull


class Report(Section):
    margin: number(above=0, below=1)
    videos_mb: NotNegative
    pictures: Boolean
    output_dir: PathOrNull
    assets_dir: PathText
    overwrite: Boolean
