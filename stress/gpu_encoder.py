"""python -m stress.gpu_encoder [output=FOLDER]: the vision encoder's CUDA graph on a GPU, in less than a minute.

Compares the graph with PyTorch's own encoder of the bundled Can policy, times both in turn, and counts the kernels that
each launches. All numbers go into FOLDER/gpu_encoder.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bac.runtime.vision_graph import EncoderGraph, encode
from stress.gpu import ROOT, synchronised
from stress.gpu_fused import launches_of

BATCHES, ROUNDS = (1, 8, 32), 30
MOST = 1e-3  # difference, relative to the features' range: both round convolutions to TF32


def compare(device: str = "cuda") -> list[dict[str, Any]]:
    """Difference, milliseconds (medians) and launches for each batch."""
    from diffusion_policy.common.checkpoint import load_policy

    policy = load_policy(str(ROOT / "checkpoint/can_scripted_demos/ddpm100")).policy.to(device)
    module, graph = policy.obs_encoder, EncoderGraph(policy.obs_encoder)
    rows = []
    for batch in BATCHES:
        seen = policy.random_observation(batch, torch.Generator().manual_seed(0))
        nobs = policy.normalizer.normalize({name: value.to(device) for name, value in seen.items()})
        works = {"eager": partial(encode, module, nobs), "graph": partial(graph, nobs)}
        expected, got = works["eager"](), works["graph"]()
        spread = (expected.max() - expected.min()).item()
        row: dict[str, Any] = {"batch": batch, "difference": (got - expected).abs().max().item() / spread}
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, work in works.items():
                times[name].append(synchronised(work))
        for name, work in works.items():
            row[f"{name} ms"], row[f"{name} launches"] = statistics.median(times[name]), launches_of(work)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


@torch.no_grad()
def main(texts: list[str]) -> int:
    """Exit status: 1 where the graph does not give PyTorch's features, or there is no GPU."""
    given = dict(text.split("=", 1) for text in texts)
    if not torch.cuda.is_available():
        print("no GPU: nothing to compare. tests/bac/test_vision_graph.py tests what surrounds the graph")
        return 1
    output = Path(given.get("output", "."))
    output.mkdir(parents=True, exist_ok=True)
    rows = compare()
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "batches": rows}
    (output / "gpu_encoder.json").write_text(json.dumps(found, indent=2) + "\n")
    right = all(row["difference"] < MOST for row in rows)
    print("right" if right else "WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
