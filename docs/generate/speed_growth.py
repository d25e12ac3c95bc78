"""Parts of docs/results/speed.md: other inference engines, and how the compiled runtime's time grows."""

from __future__ import annotations

from typing import Any

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import TITLES

OWN = ("planned", "compiled")  # what names of this project's runtimes begin with
AXES = {
    "steps": "denoising steps",
    "tokens": "tokens denoised",
    "width": "width",
    "layers": "layers",
    "batch": "batch",
    "threads": "threads",
}


def machine_of(run: dict[str, Any]) -> str:
    facts = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{facts['hardware']}, instruction set level {facts['level']}; {versions}"


def peers_text(run: dict[str, Any]) -> str:
    rows = sorted(run["rows"], key=lambda row: -row["ms_p50"])
    best = next(row for row in run["rows"] if row["name"] == "compiled")["ms_p50"]
    cells = [
        [
            f"**{row['name']}**" if row["name"].startswith(OWN) else row["name"],
            f"{row['ms_p50']:.1f} / {row['ms_p95']:.1f}",
            f"{row['ms_p50'] / best:.2f}x",
            f"{row['max_difference']:.0e}" if row["max_difference"] else "-",
        ]
        for row in rows
    ]
    table = markdown((["engine", "ms p50 / p95", "time of compiled", "differs by"], cells)).strip()
    setting = f"Push-T, DDIM-{run['steps']} at batch {run['batch']}, all 16 tokens unless it says otherwise"
    return f"""{setting}: the same loop around every engine, one interleaved run of {rows[0]["n"]} rounds. Bold: this
project's runtimes. The last column is the largest difference of an executed action to the plain policy's, as a share of
the largest action.

{table}

{machine_of(run)}. `make peers` makes this table on the machine at hand; [stored data](speed_peers.json)."""


def growth_text(run: dict[str, Any]) -> str:
    base = run["base"]
    rows = [
        [
            AXES[axis],
            ", ".join(f"{row[axis]}: {row['ms_p50']:.2f}" for row in measured),
        ]
        for axis, measured in run["axes"].items()
    ]
    table = markdown((["what changes", "its value: ms per chunk"], rows)).strip()
    return f"""The compiled runtime in fp32 on random weights of the Push-T policy's form: {base["layers"]} layers of
width {base["width"]}, {base["tokens"]} tokens, {base["steps"]} steps, batch {base["batch"]}, {base["threads"]} thread,
one of these changed at a time. Medians of {run["axes"]["steps"][0]["n"]} rounds, each line one interleaved run.

{table}

{machine_of(run)}. `python -m speed.growth` makes this table again; [stored data](speed_growth.json)."""


def evaluations_text(run: dict[str, Any]) -> str:
    """How many environment steps an evaluation does, with and without overlapping."""
    rows = []
    for row in run["rows"]:
        without, overlapped = (sum(row[name]) / len(row[name]) for name in ("never", "always"))
        shares = " / ".join(f"{share:.0%}" for share in row["policy_share"])
        cells = [f"{without:,.0f}", f"{overlapped:,.0f}", f"{overlapped / without:.2f}x", shares]
        simulator = f"{sum(row['simulator']) / len(row['simulator']):,.0f}"
        rows.append([TITLES[row["task"]], row["sampler"], *cells, simulator])
    columns = ["task", "sampler", "steps per second", "overlapped", "gain", "time in the policy"]
    columns += ["one simulator alone"]
    return f"""The policy computes for one batch of episodes while the environments of another move (`eval.overlap`);
the numbers are bit-equal to those without. Environment steps per second of {run["episodes"]} episodes, {run["n_envs"]}
in a batch, {run["n_workers"]} environment processes, means of two runs by turns:

{markdown((columns, rows)).strip()}

{run["hardware"]}, {run["threads"]} policy thread, torch {run["versions"]["torch"]}; compiled runtime. More cores leave
more to gain: here three processes share two. [Stored data](speed_evaluations.json)."""
