"""python -m stress.sanitizers: the native engine, and the GPU kernel in its CPU form, under g++'s sanitizers.

Stray memory access, undefined behaviour and data races end it with exit status 1 and the sanitizer's report. It takes a
few minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

SANITIZERS = {"address,undefined": "libasan.so", "thread": "libtsan.so"}
#: what the instrumented process runs
CHILD = "from stress.sanitizers import exercise; exercise()"


def exercise() -> None:
    """Chunks of tiny models with every shape of the loop: forms, formats, batches, teams and shares."""
    import torch

    from bac.denoiser import model_blocks
    from bac.native import build, levels
    from bac.runtime.choose import make_sampler
    from bac.uniform import uniform
    from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
    from diffusion_policy.policy.sampler_inputs import SamplerInputs
    from stress import samples

    torch.set_num_threads(1)
    precisions = levels.choose_level(build.library()).precisions
    policy, _ = samples.lowdim()
    own = policy.sampler
    base = DiffusionSampler(own.model, own.scheduler, 6)
    schedule = uniform(model_blocks(base.model), 6, 2)
    for half in (False, True):
        if half:
            for parameter in base.model.parameters():
                parameter.data.copy_(parameter.half().float())
        for precision in precisions:
            for threads in (1, 2, 4):
                sampler = make_sampler(base, schedule, "compiled", precision, threads)
                for batch in (1, 3, 19):
                    inputs = policy.sampler_inputs(policy.random_observation(batch))
                    known = torch.rand(inputs.known.shape) < 0.2
                    sampler(SamplerInputs(inputs.known, known, inputs.observation))
    exercise_encoder("bf16" in precisions)
    exercise_kernel("-fsanitize=thread" in os.environ["CXX"])
    exercise_fused()


def exercise_kernel(threads: bool) -> None:
    """Chunks of the GPU kernel's CPU form. With `threads`, a wait that is missing is a race."""
    from dataclasses import replace

    import torch

    from bac.denoiser import model_blocks
    from bac.native.gpu.host import HostMachine
    from bac.runtime.persistent import PersistentSampler
    from bac.samplers.grid_loop import GridLoop, GridSettings
    from bac.schedule import Schedule
    from bac.uniform import uniform
    from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
    from diffusion_policy.policy.sampler_inputs import SamplerInputs
    from stress import samples

    policy, _ = samples.lowdim()
    base = DiffusionSampler(policy.sampler.model, policy.sampler.scheduler, 6)
    blocks = model_blocks(base.model)
    alone = {name: [0, 1, 2, 4] if name.endswith(".ca") else [0] for name in blocks}
    inputs = policy.sampler_inputs(policy.random_observation(1))
    given = SamplerInputs(inputs.known, torch.rand(inputs.known.shape) < 0.2, inputs.observation)
    smooth = GridLoop(policy.sampler, GridSettings("ddim", tuple(range(6, -1, -1))))
    ahead = replace(Schedule.from_steps(dict.fromkeys(blocks, [0, 1, 4]), 7), reuse="extrapolate")
    cases = [(base, None), (base, uniform(blocks, 6, 2)), (base, Schedule.from_steps(alone, 6)), (smooth, ahead)]
    for loop, schedule in cases:
        for count, shared in ((2, 24 * 1024), (3, 227 * 1024)):
            sampler = PersistentSampler(loop, schedule, None, HostMachine(count, shared, threads))
            for one in (inputs, given):
                sampler(one)


def exercise_fused() -> None:
    """Chunks of the fused kernels' CPU form, for any size and for one."""
    import torch

    from bac.denoiser import model_blocks
    from bac.native.gpu.host import HostMachine
    from bac.runtime.fused_loop import FusedLoop
    from bac.runtime.hoisted import Hoisted
    from bac.uniform import uniform
    from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
    from diffusion_policy.policy.sampler_inputs import SamplerInputs
    from stress import samples

    policy, _ = samples.lowdim()
    base = DiffusionSampler(policy.sampler.model, policy.sampler.scheduler, 6)
    model = base.model
    for schedule in (None, uniform(model_blocks(model), 6, 2)):
        hoisted = Hoisted(base, schedule, "compiled")
        for precision, exact in (("fp32", False), ("bf16", False), ("fp32", True)):
            loop = FusedLoop(hoisted, precision, HostMachine(exact=exact).fused(model.n_emb, model.n_head))
            for batch in (1, 3):
                inputs = policy.sampler_inputs(policy.random_observation(batch))
                given = SamplerInputs(inputs.known, torch.rand(inputs.known.shape) < 0.2, inputs.observation)
                with torch.no_grad():
                    initial, noise = hoisted.draw(inputs.known, None)
                    loop.run(initial, noise, given, hoisted.memory(given))


def exercise_encoder(bf16: bool) -> None:
    """Images of odd sizes through every form of the vision encoder: norms, crops, formats, frames and threads."""
    import torch

    from bac.runtime.vision import NativeEncoder
    from diffusion_policy.model.vision.observation_encoder import ObservationEncoder

    shapes = {"front": (3, 41, 37), "speed": (2,), "wrist": (4, 33, 70)}
    for group_norm, crop, half in ((True, None, False), (False, (33, 36), True)):
        module = ObservationEncoder(shapes, ("front", "wrist"), crop, group_norm, fixed_crop=True).eval()
        if half:
            for parameter in module.parameters():
                parameter.data.copy_(parameter.half().float())
        for precision in ("fp32", "bf16") if bf16 else ("fp32",):
            for threads, frames in ((1, 1), (3, 2), (2, 17)):
                encoder = NativeEncoder(module, precision, threads)
                encoder({name: torch.rand(frames, 1, *shape) for name, shape in shapes.items()})


def run(sanitizer: str, runtime: str) -> str | None:
    """None if it is clean, else what was reported."""
    preload = subprocess.run(["g++", f"-print-file-name={runtime}"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(preload):
        return f"this g++ has no {runtime}"
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            **os.environ,
            "BAC_CACHE": cache,
            "CXX": f"g++ -g -fsanitize={sanitizer} -fno-sanitize-recover=undefined",
            "LD_PRELOAD": preload,
            "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaks
            "TSAN_OPTIONS": "exitcode=66 ignore_noninstrumented_modules=1",
        }
        result = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, env=environment)
    return None if result.returncode == 0 else result.stderr[-5000:] or f"exit status {result.returncode}"


def main() -> int:
    """Exit status: 1 if there is any report."""
    status = 0
    for sanitizer, runtime in SANITIZERS.items():
        begin = time.monotonic()
        report = run(sanitizer, runtime)
        print(f"{sanitizer}: {'clean' if report is None else report}, {time.monotonic() - begin:.0f} s", flush=True)
        status |= report is not None
    return status


if __name__ == "__main__":
    sys.exit(main())
