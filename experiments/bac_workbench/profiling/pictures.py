"""Pictures of a profile."""

from __future__ import annotations

from pathlib import Path

from bac.acs import blockwise_acs
from bac.bua import bubbling_union, error_scores
from bac.figures import plot_errors, plot_schedule, plot_similarity
from bac.profiling import Profile
from bac_workbench.settings.caches import DEFAULT_TOP_K


def similarity_picture(folder: Path) -> Path:
    """Where the similarity maps of the profile in `folder` are drawn."""
    return folder / "figures" / "similarity_cosine.png"


def pictures(profile: Profile, folder: Path) -> dict[str, Path]:
    """Where the pictures of a profile are, by what they show."""
    figures = folder / "figures"
    return {
        "similarity": similarity_picture(folder),
        "errors": figures / "block_errors.png",
        "schedule": figures / f"schedule_bac_s{min(10, profile.info.steps)}.png",
    }


def missing_pictures(profile: Profile, folder: Path) -> list[Path]:
    return [path for path in pictures(profile, folder).values() if not path.exists()]


def draw_profile(profile: Profile, folder: Path) -> None:
    """Draws those pictures under figures/ that are not there: similarity, error scores and the default BAC schedule."""
    scores = error_scores(profile.matrices["l1"])
    base = blockwise_acs(profile.matrices["cosine"], min(10, profile.info.steps))
    repaired = bubbling_union(base, scores, min(DEFAULT_TOP_K, len(scores)))
    draw = {
        "similarity": lambda path: plot_similarity(profile.matrices["cosine"], path, "cosine"),
        "errors": lambda path: plot_errors(scores, path, selected=repaired.provenance.repaired),
        "schedule": lambda path: plot_schedule(repaired, path, base=base),
    }
    for name, path in pictures(profile, folder).items():
        if not path.exists():
            draw[name](path)
