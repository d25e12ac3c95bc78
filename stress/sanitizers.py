"""python -m stress.sanitizers: the native engine under g++'s sanitizers, in every form of model, format and team.

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
    formats = levels.choose_level(build.library()).formats
    policy, _ = samples.lowdim()
    own = policy.sampler
    base = DiffusionSampler(own.model, own.scheduler, 6)
    schedule = uniform(model_blocks(base.model), 6, 2)
    for half in (False, True):
        if half:
            for parameter in base.model.parameters():
                parameter.data.copy_(parameter.half().float())
        for precision in ("fp32", "bf16") if "bfloat" in formats else ("fp32",):
            for threads in (1, 2, 4):
                sampler = make_sampler(base, schedule, "compiled", precision, threads)
                for batch in (1, 3, 19):
                    inputs = policy.sampler_inputs(policy.random_observation(batch))
                    known = torch.rand(inputs.known.shape) < 0.2
                    sampler(SamplerInputs(inputs.known, known, inputs.observation))


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
