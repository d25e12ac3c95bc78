"""The Can policy's vision encoder in other inference engines and in native code, in one interleaved run.

    python -m speed.encoders [rounds=60] [threads=1] [output=results/speed/encoders.json] [overwrite=false]

One observation: two cameras, two frames each. `make peers` runs it in an environment that has the other engines.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bac.native import build, levels
from bac.runtime.vision import NativeEncoder
from diffusion_policy.common.checkpoint import load_policy
from speed import arguments
from speed.engines import PEERS, tell
from speed.interleaved import machine, milliseconds, write

CHECKPOINT = Path(__file__).parents[1] / "checkpoint/can_scripted_demos/ddpm100"
USAGE = "usage: python -m speed.encoders [rounds=60] [threads=1] [output=results/speed/encoders.json] [overwrite=false]"


class Cameras(nn.Module):
    """The cameras of an encoder as engines take them: an image tensor [N, 3, H, W] each -> features [N, D]."""

    def __init__(self, encoder: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.encoder, self.names = encoder, names
        self.eval()

    def forward(self, *images: Tensor) -> Tensor:
        return torch.cat([self.encoder._camera(name, image, None) for name, image in zip(self.names, images)], dim=-1)


@torch.no_grad()
def main(texts: list[str]) -> int:
    """Exit status: 0."""
    settings = arguments.read(texts, USAGE, "results/speed/encoders.json", 60)
    threads = settings["threads"] or 1
    torch.set_num_threads(threads)
    policy = load_policy(str(CHECKPOINT)).policy
    names = tuple(name for name in policy.obs_shapes if name in policy.cameras)
    generator = torch.Generator().manual_seed(0)
    shape = (policy.n_obs_steps, *policy.obs_shapes[names[0]])
    images = tuple(torch.rand(shape, generator=generator) * 2 - 1 for _ in names)
    cameras = Cameras(policy.obs_encoder, names)
    observation = {name: torch.zeros(1, policy.n_obs_steps, *policy.obs_shapes[name]) for name in policy.obs_shapes}
    observation |= {name: image[None] for name, image in zip(names, images)}
    runs: dict[str, Callable[[], Tensor]] = {"plain, module by module": lambda: cameras(*images)}
    for precision in levels.choose_level(build.library()).precisions:
        if precision != "int8":  # which leaves images in bf16
            native = NativeEncoder(policy.obs_encoder, precision, threads)
            columns = torch.cat([torch.arange(*native.columns[name].indices(native.native.width)) for name in names])
            name = "compiled" if precision == "fp32" else f"compiled, {precision}"
            runs[name] = lambda native=native, columns=columns: native(observation)[0][:, columns]
    absent = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in PEERS.items():
            try:
                engine = make(cameras, images, threads, Path(folder))
            except ImportError as error:
                absent[name] = f"not installed ({error}): make peers"
                continue
            runs[name] = lambda engine=engine: engine(*images)
        reference = cameras(*images)
        size = float(reference.abs().max())
        apart = {name: float((run() - reference).abs().max()) / size for name, run in runs.items()}
        timed: dict[str, Any] = {name: lambda *_, run=run: run() for name, run in runs.items()}
        rows = milliseconds(timed, None, settings["rounds"])
    tell(rows, apart, absent)
    crop = list(policy.obs_encoder.crop_shape or shape[2:])
    facts = {"cameras": len(names), "frames": policy.n_obs_steps, "crop": crop}
    write(settings["output"], {**facts, "threads": threads, "rows": rows, "left_out": absent, "machine": machine()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
