"""python -m stress.gpu_fused [output=FOLDER]: the fused kernels of a CUDA graph on a GPU, in less than three minutes.

Compares BAC_GPU=fused with the reference on the bundled Push-T policy, and times it beside BAC_GPU=graph: batches of
1 to 256, fp32 and bf16, with every block computed and with a BAC schedule. Counts the kernels that a chunk launches, as
the profiler sees them. All numbers go into FOLDER/gpu_fused.json. Without a GPU it compiles the kernels with nvcc and
says what that says of registers and spills.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from bac import Schedule
from bac.native.gpu import cubins
from bac.native.gpu.compilers import FOLDER, FUSED
from bac.runtime.choose import make_sampler
from stress.gpu import ARCHITECTURES, ROOT, synchronised

KINDS, BATCHES, ROUNDS = ("graph", "fused"), (1, 16, 64, 256), 12
STEPS, TOKENS = 10, 9
#: largest difference to the reference, relative to the largest entry
MOST = {"fp32": 1e-4, "bf16": 0.2}


def launches_of(work: Callable[[], Any]) -> int:
    """Kernels that some work launches, copies and fills included."""
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    return sum(event.count for event in found.key_averages() if event.device_type == DeviceType.CUDA)


def compare(device: str = "cuda") -> list[dict[str, Any]]:
    """Differences, milliseconds per chunk (medians, both kinds in turn) and launches of each case."""
    from bac.samplers.grid_loop import GridLoop, GridSettings
    from diffusion_policy.common.checkpoint import load_policy

    policy = load_policy(str(ROOT / "checkpoint/pusht_lowdim/ddpm100")).policy.to(device)
    short = GridLoop(policy.sampler, GridSettings("ddim", tuple(range(90, -1, -STEPS))))
    bac = Schedule.load(str(ROOT / "assets/pusht_lowdim/schedules/bac_s10.json"))
    rows = []
    for name, loop, schedule in (("ddim10", short, None), ("bac_s10", policy.sampler, bac)):
        for precision in ("fp32", "bf16"):
            samplers = {}
            for kind in KINDS:
                os.environ["BAC_GPU"] = kind
                samplers[kind] = make_sampler(loop, schedule, "compiled", precision, tokens=TOKENS)
            reference = make_sampler(loop, schedule, "reference", tokens=TOKENS)
            for batch in BATCHES:
                seen = policy.random_observation(batch, torch.Generator().manual_seed(0))
                inputs = policy.sampler_inputs({key: value.to(device) for key, value in seen.items()})
                expected = reference(inputs, torch.Generator().manual_seed(0))
                times: dict[str, list[float]] = {kind: [] for kind in KINDS}
                row: dict[str, Any] = {"case": name, "precision": precision, "batch": batch}
                for kind, sampler in samplers.items():
                    got = sampler(inputs, torch.Generator().manual_seed(0))
                    largest = expected.abs().max().clamp(min=1)
                    row[f"{kind} difference"] = ((got - expected).abs().max() / largest).item()
                    row[f"{kind} launches"] = launches_of(partial(sampler, inputs, torch.Generator().manual_seed(0)))
                for _ in range(ROUNDS):
                    for kind, sampler in samplers.items():
                        chunk = partial(sampler, inputs, torch.Generator().manual_seed(0))
                        times[kind].append(synchronised(chunk))
                row.update({f"{kind} ms": statistics.median(times[kind]) for kind in KINDS})
                row["how"] = samplers["fused"].how
                print(json.dumps(row), flush=True)
                rows.append(row)
    return rows


def compile_all(sizes: tuple[tuple[int, int], ...] = ((256, 4), (768, 12))) -> None:
    """What nvcc says of the kernels for a width and a number of heads, on each architecture."""
    for architecture in ARCHITECTURES:
        for width, heads in sizes:
            command = [os.environ.get("NVCC") or "nvcc", "-cubin", f"-arch={architecture}", "--resource-usage"]
            with tempfile.TemporaryDirectory() as scratch:
                target = [str(FOLDER / FUSED), "-o", f"{scratch}/fused.cubin"]
                call = [*command, *cubins.fused_options_of(width, heads), *target]
                result = subprocess.run(call, capture_output=True, text=True, check=True)
            for part in (result.stdout + result.stderr).split("Function properties for bac_")[1:]:
                name, spills, registers = (line.strip() for line in part.splitlines()[:3])
                print(f"{architecture}, width {width}, {name}: {registers.removeprefix('ptxas info    : ')}; {spills}")


def main(texts: list[str]) -> int:
    """Exit status: 1 where something failed, or is not what the reference gives."""
    given = dict(text.split("=", 1) for text in texts)
    if not torch.cuda.is_available():
        print("no GPU: only compiling")
        compile_all()
        return 0
    output = Path(given.get("output", "."))
    output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    try:
        found["cases"] = compare()
    except Exception:
        found["error"] = traceback.format_exc()
        print(found["error"])
    (output / "gpu_fused.json").write_text(json.dumps(found, indent=2) + "\n")
    rows = found.get("cases", [])
    right = bool(rows) and all(row["fused difference"] < MOST[row["precision"]] for row in rows)
    print("right" if right else "WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
