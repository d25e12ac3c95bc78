"""Parts of docs/results/speed.md: other inference engines, precisions, and how the compiled runtime's time grows."""

from __future__ import annotations

from typing import Any

from bac_workbench.evaluation.comparison_tables import markdown
from bac_workbench.reporting.names import TITLES, label
from bac_workbench.reporting.stored import TaskResults
from bac_workbench.reporting.tables import difference, estimate

ORDER = ("fp32", "bf16", "int8")
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


def engines_table(run: dict[str, Any]) -> str:
    """A row per engine, the slowest first."""
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
    return markdown((["engine", "ms p50 / p95", "time of compiled", "differs by"], cells)).strip()


def encoders_text(run: dict[str, Any]) -> str:
    height, width = run["crop"]
    return f"""The Can policy's encoder on one observation: {run["cameras"]} cameras, {run["frames"]} frames
each, crops of {height} x {width}; a ResNet-18 with group normalisation for each camera. One interleaved run of
{run["rows"][0]["n"]} rounds. The last column is the largest difference of a feature to PyTorch's, as a share of the
largest. In native code 3x3 convolutions multiply 2.25 to 4 times less (Winograd's minimal filtering) where that pays,
and kernel taps that see only padding are left out.

{engines_table(run)}

{machine_of(run)}. `make peers` makes this table, too; [stored data](speed_encoders.json)."""


def peers_text(run: dict[str, Any]) -> str:
    setting = f"Push-T, DDIM-{run['steps']} at batch {run['batch']}, all 16 tokens unless it says otherwise"
    return f"""{setting}: the same loop around every engine, one interleaved run of
{run["rows"][0]["n"]} rounds. Bold: this project's runtimes. The last column is the largest difference of an executed
action to the plain policy's, as a share of the largest action.

{engines_table(run)}

{machine_of(run)}. `make peers` makes this table on the machine at hand; [stored data](speed_peers.json)."""


def precisions_text(run: dict[str, Any], scored: list[TaskResults]) -> str:
    """Times and actions of every precision, and the scores of those that were rolled out."""
    exact = {row["sampler"]: row["ms_p50"] for row in run["rows"] if row["precision"] == "fp32"}
    cells = [
        [
            label("full", row["sampler"]),
            row["precision"],
            f"{row['ms_p50']:.2f} / {row['ms_p95']:.2f}",
            f"{exact[row['sampler']] / row['ms_p50']:.2f}x",
            f"{row['moved']:.2%}" if row["moved"] else "-",
            f"{row['another_noise']:.0%}",
        ]
        for row in run["rows"]
    ]
    columns = ("sampler", "precision", "ms p50 / p95", "faster than fp32", "moves actions by", "another noise by")
    peak = ", ".join(f"{precision} {gflops:.0f}" for precision, gflops in run["gflops"].items())
    parts = [
        f"""Push-T at batch 1, the {run["tokens"]} tokens that reach the executed actions, one interleaved run of
{run["rows"][0]["n"]} rounds for each sampler. Actions move by the root mean square difference to fp32's from the same
noise, in their standard deviations ({run["observations"]} random observations). Products alone reach, in GFLOP/s:
{peak}. With int8, weights are rounded per output channel and activations to each token's own range when it is there:
nothing is calibrated.""",
        markdown((columns, cells)).strip(),
        f"{machine_of(run)}. `python -m speed.precisions` makes it again; [stored data](speed_precisions.json).",
    ]
    for results in scored:
        rows = [
            [
                label(row["method"], row["sampler"]),
                row["precision"],
                estimate(row["mean_score"], row["interval_95"], 3),
                difference(row) if row["paired_difference"] else "-",
            ]
            for row in sorted(results.rows, key=by_cost)
        ]
        columns = ("sampler", "precision", "score [95 %]", "paired difference to full [95 %]")
        parts += [
            f"{results.title}, {results.rows[0]['n_episodes']} episodes per row over two noise seeds "
            f"(`TASKS={results.task} shs/precisions.sh`):",
            markdown((columns, rows)).strip(),
        ]
    return "\n\n".join(parts)


def tiles_text(run: dict[str, Any]) -> str:
    """What the tile unit of Intel's processors brings, at several batches."""
    rows = run["batches"]
    times = {(row["batch"], row["level"], row["precision"]): row["ms_p50"] for row in rows}
    unit, without = dict.fromkeys(row["level"] for row in rows)
    cells = []
    for batch in dict.fromkeys(row["batch"] for row in rows):
        exact = times[batch, unit, "fp32"]
        found = [
            f"{ms:.1f} ({exact / ms:.1f}x)"
            for p in ("bf16", "int8")
            for ms in (times[batch, without, p], times[batch, unit, p])
        ]
        cells.append([str(batch), f"{exact:.1f}", *found])
    columns = ("batch", "fp32: ms", "bf16 without the unit", "bf16 with it", "int8 without (VNNI)", "int8 with it")
    steps = 5
    least = {
        name: f"{steps * size * run['weights'] / run['weights_gb_per_s'] / 1e6:.1f} ms"
        for name, size in (("bf16", 2), ("int8", 1))
    }
    return "\n\n".join(
        [
            f"""**With a tile unit.** Where an Intel processor has one (AMX), bf16 and int8 run on it, unless
`BAC_LEVEL` names another level. Ancestral-5, executed tokens, medians of {rows[0]["n"]} rounds, one interleaved run for
each batch:""",
            markdown((columns, cells)).strip(),
            f"""Without the unit bf16 is slower than fp32 there: its vectors multiply bfloat16 at half the rate of
floats. At batch 1 the unit waits for the weights, which come from the third-level cache at
{run["weights_gb_per_s"]:.0f} GB/s at best: that alone takes {least["bf16"]} in bf16 and {least["int8"]} in int8.""",
            f"{machine_of(run)}. [Stored data](speed_precisions_amx.json).",
        ]
    )


def by_cost(row: dict[str, Any]) -> tuple[float, int]:
    return -row["gflop_per_chunk"], ORDER.index(row["precision"])


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
