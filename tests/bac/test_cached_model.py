"""What `bac.cache` refuses, and what it says; what holds for every model is in `caching_suite`."""

import pytest
import torch
from torch import nn

from bac import Block, Schedule, UserError, cache
from bac.adapters import ADAPTERS, find_blocks
from bac.cached_model import CacheError
from bac.errors import NoDenoiser
from bac.reused import BranchError
from bac.schedule import ScheduleError
from bac.solver import solver_from_scheduler
from tests.bac.foreign_models import RDT, STEPS, TOKENS, Case, TorchDecoder, TorchEncoder, case_of, randomised
from tests.bac.tiny_policies import scheduler_of, tiny_model


class Toy(nn.Module):
    """x + a(x) + b(x); `wrong` leaves something out, `noise` is a dropout, `in_place` spoils a's output."""

    def __init__(self, noise: float = 0.0, in_place: bool = False, calls_itself: bool = False):
        super().__init__()
        self.a, self.b, self.noise = nn.Linear(4, 4), nn.Linear(4, 4), nn.Dropout(noise)
        self.in_place, self.calls_itself = in_place, calls_itself

    def forward(self, x, again: bool = True):
        if self.calls_itself and again:
            x = self(x, again=False)
        a = self.a(x)
        x = a.mul_(2) + x if self.in_place else x + a
        return self.noise(x + self.b(x))


A, B = Block("a", "sa"), Block("b", "ffn")
X = torch.ones(2, 4)


def held(blocks, steps=3):
    return Schedule.from_steps(dict.fromkeys(blocks, [0]), steps)


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "blocks", "message"),
    [
        (Toy, (B, A), "computes block a where b was expected"),
        (Toy, (A,), None),  # not all branches have to be cached
        (lambda: Toy(noise=0.5), (A, B), "another result at every call.*model.eval"),
        (lambda: Toy(calls_itself=True), (A, B), "the model calls itself"),
        (Toy, (Block("missing"),), "no module missing"),
        (Toy, (Block("a:branch"),), "without a method branch"),
        (lambda: nn.Sequential(Toy()), (Block("0.a"), Block("0", layer=1)), "computes block 0 where 0.a"),
    ],
)
def test_models_that_do_otherwise_are_refused(make, blocks, message):
    model = make()
    if message is None:
        with cache(model, held(blocks)):
            model(X)
        return
    with pytest.raises(UserError, match=message), cache(model, held(blocks)):
        model(X)
    assert not any("forward" in vars(module) for module in model.modules())


@torch.no_grad()
def test_blocks_that_are_not_computed_are_named():
    model = Toy()
    model.c = nn.Linear(4, 4)
    with pytest.raises(CacheError, match="did not compute block c"), cache(model, held((A, B, Block("c")))):
        model(X)


@torch.no_grad()
def test_outputs_that_the_model_overwrites_are_not_given_again():
    model = Toy(in_place=True)
    with cache(model, held((A, B))):
        model(X)
        with pytest.raises(BranchError, match="output of block a in place"):
            model(X)


@pytest.mark.skipif(not hasattr(torch.backends, "mha"), reason="PyTorch has no switch for it before 2.3")
@torch.no_grad()
def test_pytorchs_fused_encoder_is_recognised():
    case = Case(randomised(TorchEncoder(heads=2)), case_of("torch encoder").call)
    blocks = find_blocks(case.model)
    with pytest.raises(CacheError, match="set_fastpath_enabled"), cache(case.model, held(blocks, STEPS)):
        case.sample()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with cache(case.model, Schedule.full(blocks, STEPS)) as cached:
            case.sample()
        assert cached.exact
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_inference_mode_is_a_mode_like_any_other():
    case = case_of("RDT")
    schedule = held(find_blocks(case.model), STEPS)
    with torch.no_grad(), cache(case.model, schedule):
        expected = case.sample()
    with torch.inference_mode(), cache(case.model, schedule):
        assert torch.equal(case.sample(), expected)


def test_schedules_of_other_loops_and_models_are_refused():
    case = case_of("RDT")
    blocks = find_blocks(case.model)
    scheduler, _ = scheduler_of("ddim")
    scheduler.set_timesteps(5)
    with pytest.raises(ScheduleError, match=f"for {STEPS} denoising steps, the sampler takes 5"):
        cache(case.model, held(blocks, STEPS), solver=solver_from_scheduler(scheduler))
    with pytest.raises(ScheduleError, match="for another model"):
        cache(case.model, held(blocks, STEPS), blocks=find_blocks(RDT(layers=2)))
    with pytest.raises(CacheError, match="no method denoise"):
        cache(case.model, held(blocks, STEPS), method="denoise")
    with pytest.raises(CacheError, match="is compiled"):
        cache(torch.compile(case.model), held(blocks, STEPS))


def test_adapters_tell_models_apart():
    """Each of the known models is known by one adapter."""
    for model in (TorchDecoder(), TorchEncoder(), case_of("DiT").model, RDT(), tiny_model()):
        assert sum(bool(adapter(model)) for adapter in ADAPTERS.values()) == 1
    with pytest.raises(NoDenoiser, match="Linear has layers of 0 known kinds"):
        find_blocks(nn.Linear(2, 2))
    both = nn.ModuleDict({"decoder": TorchDecoder(), "refiner": RDT()})
    with pytest.raises(NoDenoiser, match="layers of 2 known kinds: torch_layers.*rdt"):
        find_blocks(both)
    assert all(name.startswith("refiner.") for name in find_blocks(both, under="refiner."))
    with pytest.raises(NoDenoiser, match="post-norm"):
        find_blocks(nn.TransformerEncoderLayer(4, 2))


@torch.no_grad()
def test_a_schedule_from_a_file_names_what_is_cached(tmp_path):
    case = case_of("torch decoder")
    with cache(case.model, held(find_blocks(case.model), STEPS)):
        expected = case.sample()
    held(find_blocks(case.model), STEPS).save(tmp_path / "held.json")
    with cache(case.model, Schedule.load(tmp_path / "held.json")) as cached:
        assert torch.equal(case.sample(), expected)
    assert cached.chunks == 1 and expected.shape[1] == TOKENS
