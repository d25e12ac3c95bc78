"""Settings of compare, beside the folder and the run to pair with."""

from __future__ import annotations

from bac_workbench.settings.kinds import Section, number


class Compare(Section):
    margin: number(above=0, below=1)
