"""python -m stress.gpu [output=FOLDER]: all about the persistent kernel that needs a GPU, in less than six minutes.

Builds it, compares it with the reference on every bundled policy that fits, repeats chunks, and times it beside the
CUDA graph and the plain policy in one interleaved run. It also measures one barrier, and what each kind of block costs.
All numbers go into FOLDER/gpu.json. Without a GPU it compiles the kernel with nvcc for every architecture and
format of weights, and says what the compiler says of registers and spills (some minutes). BAC_CACHE keeps the kernels.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bac import Schedule
from bac.blocks import parse
from bac.denoiser import model_blocks
from bac.native.gpu import cubins, cuda
from bac.native.gpu.compilers import FOLDER, SOURCE
from bac.native.gpu.shares import THREADS, Device, Shape, launch_of
from bac.runtime.choose import make_sampler
from bac.runtime.persistent import PersistentSampler
from bac.samplers.grid_loop import GridLoop, GridSettings

ROOT = Path(__file__).resolve().parents[1]
#: with what a large GPU of each has
ARCHITECTURES = {
    "sm_80": Device(108, 163 * 1024, 40 * 2**20),
    "sm_89": Device(128, 99 * 1024, 72 * 2**20),
    "sm_90": Device(132, 227 * 1024, 50 * 2**20),
}
ROUNDS, REPEATS, BARRIERS = 12, 200, 10_000
PLAIN, GRAPH, KERNEL = "reference", "graph", "persistent"


def synchronised(work: Callable[[], Any]) -> float:
    """Milliseconds of wall-clock until the GPU is done."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e3


def sampler_of(kind: str, loop: Any, schedule: Schedule | None, tokens: int | None) -> Any:
    """One of the three, whichever fits: BAC_GPU forces it, so that no other runs under its name."""
    if kind == PLAIN:
        return make_sampler(loop, schedule, "reference", tokens=None)
    os.environ["BAC_GPU"] = kind
    return make_sampler(loop, schedule, "compiled", tokens=tokens)


def loaded(name: str) -> tuple[Any, Any]:
    """A bundled policy on the GPU, and inputs for one chunk."""
    from diffusion_policy.common.checkpoint import load_policy

    policy = load_policy(str(ROOT / "checkpoint" / name / "ddpm100")).policy.cuda()
    observation = policy.random_observation(1, torch.Generator().manual_seed(0))
    return policy, policy.sampler_inputs({key: value.cuda() for key, value in observation.items()})


def settings_of(policy: Any) -> dict[str, tuple[Any, Schedule | None]]:
    """The four settings that are timed, as (loop, schedule)."""
    ancestral = GridLoop(policy.sampler, GridSettings("ancestral", (92, 54, 28, 9, 4)))
    ddim = GridLoop(policy.sampler, GridSettings("ddim", tuple(range(90, -1, -10))))
    bac = Schedule.load(str(ROOT / "assets/pusht_lowdim/schedules/bac_s10.json"))
    return {
        "full": (policy.sampler, None),
        "bac_s10": (policy.sampler, bac),
        "ddim10": (ddim, None),
        "ancestral5": (ancestral, None),
    }


def correctness() -> list[dict[str, Any]]:
    """The largest difference to the reference, relative to the largest entry; policies that do not fit say why."""
    rows = []
    for folder in sorted((ROOT / "checkpoint").iterdir()):
        if not (folder / "ddpm100" / "policy.safetensors").is_file():
            rows.append({"policy": folder.name, "refused": "its weights are not here"})
            continue
        policy, inputs = loaded(folder.name)
        stop = int(policy.chunk.stop)
        for tokens in (stop, None):
            row: dict[str, Any] = {"policy": folder.name, "tokens": tokens}
            try:
                sampler = sampler_of(KERNEL, policy.sampler, None, tokens)
            except ValueError as error:
                rows.append({**row, "refused": str(error)})
                continue
            kept = policy.sampler.model.horizon if tokens is None else tokens
            expected = policy.sampler(inputs, torch.Generator().manual_seed(0))[:, :kept]
            got = sampler(inputs, torch.Generator().manual_seed(0))
            difference = ((got - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
            same = all(
                torch.equal(sampler(inputs, torch.Generator().manual_seed(0)), got) for _ in range(REPEATS // 10)
            )
            rows.append({**row, "difference": difference, "repeats_equal": same, "how": sampler.how})
    return rows


def timings() -> dict[str, Any]:
    """Milliseconds per chunk on Push-T, all samplers in turn: medians and 95th percentiles."""
    policy, inputs = loaded("pusht_lowdim")
    stop = int(policy.chunk.stop)
    samplers = {
        (name, kind): sampler_of(kind, *setting, stop)
        for name, setting in settings_of(policy).items()
        for kind in (PLAIN, GRAPH, KERNEL)
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in samplers}
    for number in range(ROUNDS + 2):
        for key, sampler in samplers.items():
            taken = synchronised(lambda sampler=sampler: sampler(inputs, torch.Generator().manual_seed(0)))
            if number >= 2:
                times[key].append(taken)
    rows = {
        f"{name} {kind}": {"p50": statistics.median(taken), "p95": sorted(taken)[int(0.95 * len(taken))]}
        for (name, kind), taken in times.items()
    }
    for (name, kind), sampler in samplers.items():
        if kind == KERNEL:
            rows[f"{name} {kind}"]["kernel alone"] = device_time(sampler, inputs)
    return rows


def device_time(sampler: PersistentSampler, inputs: Any) -> float:
    """Milliseconds of the kernel alone, from events around it; the median of ten."""
    taken, kernel = [], sampler.kernel

    def timed(params: Any, blocks: int) -> None:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        kernel(params, blocks)
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end))

    sampler.kernel = timed
    for _ in range(13):
        sampler(inputs, torch.Generator().manual_seed(0))
    sampler.kernel = kernel
    return statistics.median(taken[3:])


def parts() -> dict[str, float]:
    """What a chunk's time consists of: microseconds of a step that computes nothing, and of one block of each kind.

    From schedules in which one kind of block computes at every step, and the others at the first one only.
    """
    policy, inputs = loaded("pusht_lowdim")
    blocks, steps, stop = model_blocks(policy.model), policy.sampler.num_inference_steps, int(policy.chunk.stop)

    def milliseconds(kind: str) -> float:
        chosen = {name: list(range(steps)) if parse(name).kind == kind else [0] for name in blocks}
        return device_time(sampler_of(KERNEL, policy.sampler, Schedule.from_steps(chosen, steps), stop), inputs)

    idle = milliseconds("none")
    per_kind = len(blocks) // 3 * (steps - 1)
    return {
        "idle step": idle / steps * 1e3,
        **{kind: (milliseconds(kind) - idle) / per_kind * 1e3 for kind in ("sa", "ca", "ffn")},
    }


def barrier() -> float:
    """Microseconds of one barrier of all thread blocks."""
    machine = cuda.CudaMachine(torch.device("cuda", torch.cuda.current_device()))
    driver, module, function = machine.driver, ctypes.c_void_p(), ctypes.c_void_p()
    shape = Shape(8, 256, 4, 2, 9, 2, half=True)
    launch = launch_of(shape, machine.limits)
    assert not isinstance(launch, str), launch
    cuda._call(driver, "cuModuleLoadData", ctypes.byref(module), cubins.cubin(machine.architecture, shape, launch))
    cuda._call(driver, "cuModuleGetFunction", ctypes.byref(function), module, b"bac_barriers")
    counter = torch.zeros(1, dtype=torch.int32, device="cuda")
    pointer, rounds = ctypes.c_void_p(counter.data_ptr()), ctypes.c_int(BARRIERS)
    arguments = (ctypes.c_void_p * 2)(ctypes.addressof(pointer), ctypes.addressof(rounds))
    sizes = [ctypes.c_uint(size) for size in (machine.limits.multiprocessors, 1, 1, THREADS, 1, 1, 0)]

    def run() -> None:
        counter.zero_()
        handle = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        cuda._call(driver, "cuLaunchCooperativeKernel", function, *sizes, handle, arguments)

    return min(synchronised(run) for _ in range(5)) / BARRIERS * 1e3


def compile_all() -> list[dict[str, Any]]:
    """What nvcc says of registers and spills: architectures, numbers of tokens, formats of weights."""
    command = os.environ.get("NVCC") or "nvcc"
    rows = []
    for architecture, device in ARCHITECTURES.items():
        for tokens in (4, 9, 16):
            for half in (True, False):
                shape = Shape(8, 256, 4, 2, tokens, 2, half)
                launch = launch_of(shape, device)
                if isinstance(launch, str):
                    print(f"{architecture}, {tokens} tokens, half={half}: does not fit, {launch}")
                    continue
                options = [f"-arch={architecture}", *cubins.options_of(shape, launch)]
                with tempfile.TemporaryDirectory() as scratch:
                    target = ["-cubin", "--resource-usage", str(FOLDER / SOURCE), "-o", f"{scratch}/kernel.cubin"]
                    result = subprocess.run([command, *options, *target], capture_output=True, text=True, check=True)
                said = result.stdout + result.stderr
                own = said[said.index("Function properties for bac_denoise") :].splitlines()[1:3]
                rows.append({"architecture": architecture, "tokens": tokens, "half": half, "said": " ".join(own)})
                print(rows[-1], flush=True)
    return rows


def main(texts: list[str]) -> int:
    """Exit status: 1 where a part failed, or a number is not that of the reference or changes from chunk to chunk."""
    given = dict(text.split("=", 1) for text in texts)
    if not torch.cuda.is_available():
        print("no GPU: only compiling")
        compile_all()
        return 0
    output = Path(given.get("output", "."))
    output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "limits": str(cuda.CudaMachine(torch.device("cuda", torch.cuda.current_device())).limits),
    }
    parts_of_it: dict[str, Callable[[], Any]] = {
        "barrier_us": barrier,
        "correctness": correctness,
        "timings_ms": timings,
        "parts_us": parts,
    }
    failed = False
    for name, work in parts_of_it.items():
        try:
            found[name] = work()
        except Exception:  # the others are still worth having
            found[name], failed = {"error": traceback.format_exc()}, True
        found["seconds"] = round(time.perf_counter() - started, 1)
        print(name, json.dumps(found[name], indent=2), flush=True)
        (output / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    checked = [] if failed else [row for row in found["correctness"] if "refused" not in row]
    right = checked and all(row["difference"] < 1e-4 and row["repeats_equal"] for row in checked)
    print("right" if right else "WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
