"""Settings of a grid sampler: they survive JSON, and what is wrong with them is said."""

from __future__ import annotations

import json

import pytest

from bac.samplers.grids import ImpossibleGrid
from bac.samplers.settings import GridSettings, InvalidGridSettings

ROWS = [[1.0, -0.5, 0.0, 1.0, 0.0, 0.0, 0.0]] * 2


@pytest.mark.parametrize(
    "settings",
    [
        GridSettings("ancestral", (90, 4)),
        GridSettings("ddim", [90, 4], eta=0.5, reclip=False, coupled=True),
        GridSettings("dpmpp", (90, 4), order=1),
        GridSettings("ancestral", (90, 4), scalars=ROWS, noise_weights=[[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]),
    ],
)
def test_json_gives_the_same_settings_again(settings):
    again = GridSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings and hash(again) == hash(settings) and again.steps == 2


def test_what_is_as_by_default_is_left_out():
    assert GridSettings("ancestral", (90, 4)).to_dict() == {"kind": "ancestral", "timesteps": [90, 4]}


def test_the_digest_is_of_what_was_fitted():
    plain, fitted = GridSettings("ddim", (90, 4)), GridSettings("ddim", (90, 4), scalars=ROWS)
    other = GridSettings("ddim", (90, 4), scalars=[ROWS[0], [*ROWS[1][:-1], 0.1]])
    assert plain.fitted_digest is None and len({fitted.fitted_digest, other.fitted_digest}) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kind": "euler"}, "use ancestral, ddim, dpmpp"),
        ({"timesteps": (4, 90)}, "do not descend"),
        ({"timesteps": ()}, "no grid"),
        ({"kind": "ddim", "eta": 1.5}, "from 0 to 1"),
        ({"eta": 0.5}, "option of kind=ddim: ancestral has none"),
        ({"reclip": True}, "option of kind=ddim"),
        ({"order": 1}, "with kind=dpmpp"),
        ({"kind": "dpmpp", "order": 3}, "use 1 or 2"),
        ({"kind": "dpmpp", "coupled": True}, "of kind=ancestral or ddim"),
        ({"scalars": ROWS[:1]}, r"shape \[2, 7\]"),
        ({"scalars": [[float("nan")] * 7] * 2}, "NaN or infinity"),
        ({"noise_weights": [[1.0, 1.0]] * 2}, "unit norm"),
        ({"noise_weights": [[1.0, 0.0]] * 3}, r"shape \[2, 2\]"),
        ({"noise_weights": [[1.0, 0.0]] * 2, "coupled": False}, "use them with coupled=True"),
    ],
)
def test_what_is_wrong_is_said(arguments, message):
    with pytest.raises((InvalidGridSettings, ImpossibleGrid), match=message):
        GridSettings(**{"kind": "ancestral", "timesteps": (90, 4), **arguments})


def test_unknown_and_missing_names_are_refused():
    with pytest.raises(InvalidGridSettings, match="has no spacing: it has coupled, eta"):
        GridSettings.from_dict({"kind": "ddim", "timesteps": [3], "spacing": "even"})
    with pytest.raises(InvalidGridSettings, match="lack timesteps"):
        GridSettings.from_dict({"kind": "ddim"})
