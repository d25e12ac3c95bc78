"""Settings of serve: a policy for clients on the network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bac_workbench.settings.evaluation import ActingSettings
from bac_workbench.settings.kinds import Count, Kind, Positive, integer, nullable, number
from bac_workbench.settings.task import PathOrNull

Host = Annotated[
    str, Field(pattern=r"^[0-9A-Za-z.:-]{1,255}$"), Kind("an address of this machine, such as 127.0.0.1", text=True)
]
Seconds = number(above=0, high=3600)


class Serve(ActingSettings):
    host: Host
    port: integer(0, 65_535)
    token_file: PathOrNull
    max_clients: integer(1, 10_000)
    max_waiting: integer(0, 10_000)
    max_request_kb: nullable(Count)
    max_rate: Positive
    timeout_s: Seconds
    drain_s: Seconds
    deadline_ms: nullable(Positive)
