"""Settings of compare and dashboard, beside the folder and the run to pair with."""

from __future__ import annotations

from bac_workbench.settings.kinds import Section, Text, choice, nullable, number


class Compare(Section):
    margin: number(above=0, below=1)


class Dashboard(Compare):
    where: choice("auto", "wandb", "local")
    project: Text
    entity: nullable(Text)
    title: Text
