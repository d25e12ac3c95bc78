"""A schedule and a provenance for tests."""

from bac.blocks import decoder_blocks
from bac.schedule import Provenance, Schedule

BLOCKS = decoder_blocks(2)


def example(provenance=None) -> Schedule:
    steps = {name: [0, 2 + i] for i, name in enumerate(BLOCKS)}
    return Schedule.from_steps(steps, 12, provenance)


def known_provenance() -> Provenance:
    return Provenance(
        method="bac",
        budget=2,
        metric="cosine",
        objective="cached_to_skipped",
        top_k=1,
        repaired=("decoder.layers.0.sa",),
        forced_refresh=(11,),
        checkpoint_hash="abc",
        weights="ema",
        observations=64,
        seeds=(0, 1),
        sampler="ddpm",
        sampler_steps=12,
        extras={"note": ["ü", 1.5, None, {"nested": (1, 2)}]},
    )
