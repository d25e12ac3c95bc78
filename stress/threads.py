"""python -m stress.threads [CHUNKS]: threads and precisions of the native engine on the bundled Push-T policy, batch 1.

One interleaved run of ancestral-5 with 1, 2, 4 ... threads, as many as this process may use, in fp32 and, where there
are the units, bf16 and int8; then CHUNKS (10,000) further chunks in a row, after which memory and threads must be what
they were.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import torch

from bac.horizon import choose_tokens
from bac.native import build, levels
from bac.runtime.choose import make_sampler
from bac.samplers.grid_loop import GridLoop, GridSettings
from diffusion_policy.common.checkpoint import load_policy

CHECKPOINT = Path(__file__).parents[1] / "checkpoint/pusht_lowdim/ddpm100"
TIMESTEPS = (92, 54, 28, 9, 4)
ROUNDS, GROWTH = 200, 4 << 20


def main(chunks: int = 10_000) -> int:
    """Exit status: 1 if memory or threads grew."""
    torch.set_num_threads(1)
    policy = load_policy(str(CHECKPOINT)).policy
    loop, kept = GridLoop(policy.sampler, GridSettings("ancestral", TIMESTEPS)), choose_tokens(policy, "executed").kept
    level = levels.choose_level(build.library())
    cores = len(os.sched_getaffinity(0))
    counts = sorted({1, cores} | {2**i for i in range(1, cores.bit_length()) if 2**i <= cores})
    samplers = {
        (precision, count): make_sampler(loop, None, "compiled", precision, count, kept)
        for precision in level.precisions
        for count in counts
    }
    observation = policy.random_observation(1, torch.Generator().manual_seed(0))
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in samplers}
    for index in range(ROUNDS):
        for key, sampler in samplers.items():
            inputs, noise = policy.sampler_inputs(observation), torch.Generator().manual_seed(index)
            began = time.perf_counter()
            sampler(inputs, noise)
            seconds[key].append(time.perf_counter() - began)
    print(f"ancestral-5, batch 1, level {level.name}, {cores} cores; median and best of {ROUNDS} chunks")
    for (precision, count), times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["fp32", 1], times, strict=True))
        print(
            f"{precision}, {count} threads: {statistics.median(times) * 1e3:.2f} ms, {min(times) * 1e3:.2f} ms; "
            f"{ratio:.2f}x as fast as fp32 with one"
        )
    return endurance(samplers[level.precisions[-1], counts[-1]], policy.sampler_inputs(observation), chunks)


def endurance(sampler, inputs, chunks: int) -> int:
    """Runs chunks in a row; 1 if memory or the number of threads grew."""

    def state() -> tuple[int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/task"))

    for _ in range(200):
        sampler(inputs)
    (memory, threads), began = state(), time.perf_counter()
    for _ in range(chunks):
        sampler(inputs)
    grown, more = state()[0] - memory, state()[1] - threads
    print(f"{chunks:,} chunks in {time.perf_counter() - began:.0f} s: {grown / 1024:+,.0f} KiB, {more:+d} threads")
    return int(grown > GROWTH or more > 0)


if __name__ == "__main__":
    sys.exit(main(*(int(text) for text in sys.argv[1:])))
