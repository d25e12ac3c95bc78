"""Every adapter, in the suite of `caching_suite`."""

import pytest
import torch

from bac.adapters import find_blocks
from tests.bac.caching_suite import CHECKS, Subject
from tests.bac.foreign_models import MODELS, Case, case_of
from tests.bac.tiny_policies import tiny_model


def subject_of(name: str) -> Subject:
    if name == "policy transformer":
        model = tiny_model(input_dim=3, output_dim=3, cond_dim=4, n_obs_steps=1)
        case = Case(model, lambda model, x, t, condition: model(x, 100 * t, condition[:, None]))
        return Subject(case, find_blocks(model))
    case = case_of(name)
    return Subject(case, find_blocks(case.model), MODELS[name][1])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", [*MODELS, "policy transformer"])
@torch.no_grad()
def test_suite(name, check):
    CHECKS[check](subject_of(name))
