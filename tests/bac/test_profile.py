"""Profiles: what they are of, and which matrices are refused."""

import numpy as np
import pytest

from bac.profile import Profile, ProfileError
from bac.similarity import METRICS
from tests.bac.profiles import BLOCKS, SETTINGS, info, matrices, matrix, with_entry

# ---- what it is of ----


def test_differences_are_said_in_words():
    own = info()
    assert (
        own.matches()
        and own.differences(checkpoint_hash="a" * 64, weights="ema", sampler="ddim5", steps=5, settings=SETTINGS) == []
    )
    assert own.differences(checkpoint_hash="b" * 64, weights="raw", sampler="ddpm100", steps=100) == [
        f"checkpoint {'a' * 12} instead of {'b' * 12}",
        "weights ema instead of raw",
        "sampler ddim5 instead of ddpm100",
        "number of denoising steps 5 instead of 100",
    ]
    assert own.differences(settings={**SETTINGS, "seed_start": 0, "noise_seeds": (0,)}) == [
        "seed_start 20000 instead of 0",
        "noise_seeds [0, 1] instead of [0]",
    ]
    with pytest.raises(ProfileError, match="the settings of a profile are n_episodes, "):
        own.differences(settings={"episodes": 3})


@pytest.mark.parametrize(
    ("stored", "wanted", "differs"),
    [
        ({"observations": 2, "settings": {**SETTINGS, "n_observations": 2}}, {}, "n_observations 2 instead of 64"),
        ({"observations": 31}, {}, None),  # 64 were asked for, and the episodes had no more
        ({"observations": 2, "settings": None}, {}, "n_observations 2 instead of 64"),
        ({"observations": 31, "settings": None}, {}, None),
        ({"observations": 64, "settings": None}, {"n_observations": 2}, "n_observations 64 instead of 2"),
        ({"settings": None}, {"n_episodes": 4}, "n_episodes 8 instead of 4"),
        ({"settings": None}, {"noise_seeds": [5]}, r"noise_seeds [0, 1] instead of [5]"),
    ],
)
def test_a_profile_of_few_observations_is_not_taken_for_one_of_many(stored, wanted, differs):
    own = info(**{"source": "rollouts of the full policy from seeds 20000..20007", **stored})
    assert own.differences(settings={**SETTINGS, **wanted}) == ([differs] if differs else [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_seeds": ()}, "at least one noise seed"),
        ({"observations": 0}, "at least one observation"),
        ({"observations": -4}, "negative"),
        ({"steps": 0}, "steps must lie in"),
        ({"steps": 10**9}, "steps must lie in"),
        ({"weights": "both"}, "'ema' or 'raw'"),
        ({"sampler": 5}, "sampler must hold text"),
        ({"noise_seeds": "01"}, "must be a list"),
        ({"noise_seeds": (0.5,)}, "integers"),
        ({"settings": {"batch": 1}}, "the settings of a profile"),
        ({"settings": [1]}, "the settings of a profile"),
    ],
)
def test_impossible_descriptions_are_refused(changes, message):
    with pytest.raises(ProfileError, match=message):
        info(**changes)


# ---- matrices ----


def broken(metric=None, block=BLOCKS[0], value=None, order=None):
    result = matrices()
    if metric:
        result[metric][block] = value
    if order:
        result = {name: {block: blocks[block] for block in order} for name, blocks in result.items()}
    return result


BROKEN = {
    "nan": (broken("l1", value=with_entry("l1", np.nan)), "l1 of decoder.layers.0.sa holds NaN or infinite"),
    "infinite": (broken("mse", value=with_entry("mse", np.inf)), "NaN or infinite"),
    "asymmetric": (broken("l2", value=with_entry("l2", 0.9, symmetric=False)), "is not symmetric"),
    "no cosine": (broken("cosine", value=with_entry("cosine", 1.5)), "is no cosine"),
    "negative distance": (broken("l1", value=with_entry("l1", -0.5)), "negative distance"),
    "beyond single precision": (broken("mse", value=with_entry("mse", 1e300)), "more than its stored form can"),
    "other steps": (broken("l1", value=np.zeros((4, 4))), r"must be float \[5, 5\]"),
    "integers": (broken("l1", value=np.zeros((5, 5), int)), "must be float"),
    "one row": (broken("l1", value=np.zeros(5)), "must be float"),
    "an unknown metric": ({**matrices(), "angle": matrices()["l1"]}, "unknown: angle"),
    "a missing metric": ({"cosine": matrices()["cosine"]}, "missing: l1, l2, mse"),
    "no matrices": ({}, "missing: cosine, l1, l2"),
    "an unknown block": (broken("l1", "head", matrix("l1")), "other blocks than cosine"),
    "blocks out of order": (broken(order=BLOCKS[::-1]), "execution order"),
    "no blocks": ({metric: {} for metric in METRICS}, "no blocks"),
    "other steps than described": (
        {m: {b: np.zeros((4, 4)) for b in BLOCKS} for m in METRICS},
        r"must be float \[5, 5\]",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_unsound_matrices_are_never_stored(what):
    content, message = BROKEN[what]
    with pytest.raises(ProfileError, match=message):
        Profile(info(), content)
