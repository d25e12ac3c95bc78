"""cache=sacs: schedules within a budget, from holding costs that are measured once and never replaced unasked."""

from __future__ import annotations

import json

import pytest

from bac.block_times import BlockTimes
from bac.blocks import is_ffn
from bac.denoiser import model_blocks
from bac.flops import denoiser_cost
from bac.schedule import Schedule, ScheduleError
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.profiling.profiles import replace_profile
from bac_workbench.settings import check
from bac_workbench.settings.methods import parse_method
from bac_workbench.setup.experiment import load_experiment
from diffusion_policy.common.config import ConfigError
from tests.experiments.conftest import made_once
from tests.experiments.test_assets import contents

pytest.importorskip("pymunk")
pytestmark = pytest.mark.usefixtures("quick_pictures")
SACS = ["cache=sacs", "cache.n_states=2", "cache.draws=1"]
TAGS = "_n2_v1"
FOLDER = "assets/pusht_lowdim/ddpm8"  # which the checkpoint's own sampler is not


@pytest.fixture
def make(make_settings):
    """make(...) -> (schedule, what was said, experiment); DDPM-8 on the tiny policy."""

    def build(*overrides):
        experiment, said = load_experiment(make_settings(*SACS, *overrides)), []
        return schedule_for(experiment, said.append), said, experiment

    return build


@pytest.fixture
def stored(make, tmp_path, first_assets, quick_pictures):
    """The assets folder with the costs and the schedule of cache.budget=3."""
    return made_once(first_assets, tmp_path / "assets", lambda: make("cache.budget=3"))


def measured(said):
    return any("measuring now" in line for line in said)


def flops(schedule, experiment):
    return denoiser_cost(experiment.policy.model).flops(schedule)


def test_a_budget_of_bacs_is_kept_and_the_next_run_reads_it(make, make_settings, tmp_path):
    schedule, said, experiment = make("cache.budget=3")
    published = schedule_for(load_experiment(make_settings("cache=bac", "cache.budget=3")), lambda line: None)
    assert measured(said) and flops(schedule, experiment) <= flops(published, experiment)
    assert len(set(schedule.updates_per_block.values())) > 1  # blocks differ in what they need
    stored = tmp_path / FOLDER
    assert Schedule.load(stored / f"schedules/sacs_s3{TAGS}.json") == schedule
    assert (stored / "figures/sensitivity-n2-v1.png").exists()
    assert (stored / f"figures/schedule_sacs_s3{TAGS}.png").exists()
    before = contents(tmp_path / "assets")
    again, said, _ = make("cache.budget=3")
    assert again == schedule and len(said) == 1 and not measured(said)
    assert contents(tmp_path / "assets") == before


def test_another_budget_takes_the_same_costs(make, stored):
    _, _, experiment = make("cache.budget=3")
    full = flops(Schedule.full(experiment.blocks, experiment.steps), experiment) / 1e9
    previous = None
    for share in (0.5, 0.9):
        schedule, said, _ = make(f"cache.budget_gflop={share * full:.6f}")
        assert not measured(said) and flops(schedule, experiment) <= share * full * 1e9 + 1
        cost = schedule.provenance.extras["predicted_cost"]
        assert previous is None or cost < previous
        previous = cost


@pytest.mark.parametrize(
    "change",
    [["cache.n_states=3"], ["cache.draws=2"], ["cache.seed=1"], ["profile.seed_start=7"], ["sampler.type=ddim"]],
)
def test_other_costs_are_measured_beside_those_that_are_there(make, stored, change):
    before = contents(stored)
    _, said, _ = make("cache.budget=3", *change)
    after = contents(stored)
    assert measured(said) and before.items() <= after.items() and len(after) > len(before)
    assert not measured(make("cache.budget=3", *change)[1]) and not measured(make("cache.budget=3")[1])


def test_another_chunk_has_other_costs(make, stored):
    schedule, said, _ = make("cache.budget=3", "task.n_action_steps=4")
    assert measured(said) and schedule.provenance.extras["chunk"] == [1, 5]
    assert not measured(make("cache.budget=3", "task.n_action_steps=4")[1])


def test_profiles_and_costs_share_a_folder(make, make_settings, stored, tmp_path):
    _, _, experiment = make("cache.budget=3")
    schedule_for(load_experiment(make_settings("cache=bac", "cache.budget=3", "cache.top_k=2")), lambda line: None)
    assert {path.name for path in (tmp_path / FOLDER / "schedules").glob("*")} == {
        "bac_s3_k2.json",
        f"sacs_s3{TAGS}.json",
    }
    replace_profile(experiment, lambda line: None)
    assert not list((tmp_path / FOLDER / "schedules").glob("*"))
    assert measured(make("cache.budget=3")[1])


def test_on_a_deterministic_sampler_outputs_may_be_extrapolated(make):
    ddim = ["sampler.type=ddim", "cache.budget=3"]
    held = make(*ddim)[0]
    schedule, said, _ = make(*ddim, "cache.reuse=extrapolate")
    assert not measured(said) and schedule.reuse == "extrapolate" and held.reuse == "hold"
    with pytest.raises(ConfigError, match="adds noise between its steps"):
        make("cache.budget=3", "cache.reuse=extrapolate")


def test_a_budget_in_milliseconds_is_what_a_clock_says_on_this_machine(make, monkeypatch):
    def price(name):
        return 20_000 if is_ffn(name) else 10_000

    def times(loop, inputs, build, rounds=15):
        assert build(Schedule.full(model_blocks(loop.model), 8))(inputs).isfinite().all()
        return BlockTimes({name: price(name) for name in model_blocks(loop.model)}, 5_000)

    def spent(schedule):  # an update takes half as long again where little else is updated
        return sum(1.5 * count * price(name) for name, count in schedule.updates_per_block.items()) + 8 * 5_000

    monkeypatch.setattr("bac_workbench.caching.time_budget.block_times", times)
    monkeypatch.setattr("bac_workbench.caching.sensitivity.stopwatch", lambda experiment, budget: spent)
    schedule, said, _ = make("cache.budget_ms=0.4")
    assert 360_000 <= spent(schedule) <= 400_000 and any("times of one update in the" in line for line in said)
    budget = schedule.provenance.extras["budget"]
    assert budget["measured"] == spent(schedule) and budget["nanoseconds"] == 400_000
    with pytest.raises(ConfigError, match="use at least 0.12, or a sampler of fewer steps"):
        make("cache.budget_ms=0.1")
    with pytest.raises(ConfigError, match="the fastest schedule found takes 0.16 ms here: use more"):
        make("cache.budget_ms=0.13")
    monkeypatch.setattr("bac_workbench.caching.sensitivity.hardware", lambda device: "an abacus")
    with pytest.raises(ScheduleError, match="this is an abacus.*move it away"):
        make("cache.budget_ms=0.4")


@pytest.mark.parametrize(
    "budget, message",
    [
        ("cache.budget=9", "use 1 to 8, the sampler's number of steps"),
        ("cache.budget_gflop=0.0000001", "does not pay one update of every block: use at least"),
        ("cache.budget_gflop=1000", "more than the full policy takes"),
    ],
)
def test_an_impossible_budget_is_refused_before_anything_is_measured(make, tmp_path, budget, message):
    with pytest.raises(ConfigError, match=message):
        make(budget)
    assert not (tmp_path / "assets").exists()


def test_one_budget_only(make_cfg):
    cfg = make_cfg("cache=sacs", "cache.budget=3", "cache.budget_ms=2")
    with pytest.raises(ConfigError, match="give one budget only, not cache.budget and cache.budget_ms"):
        check(cfg, "eval", [])
    with pytest.raises(ConfigError, match="cache.budget=null: bac needs it"):
        check(make_cfg("cache=bac", "cache.budget=null"), "eval", [])


def test_a_changed_schedule_or_damaged_costs_are_refused_and_left(make, stored, tmp_path):
    folder = tmp_path / FOLDER
    path = folder / f"schedules/sacs_s3{TAGS}.json"
    text = json.loads(path.read_text())
    text["provenance"]["extras"]["budget"]["asked"] = {"budget": 4}
    path.write_text(json.dumps(text))
    before = contents(folder)
    with pytest.raises(ScheduleError, match="is not what its name says"):
        make("cache.budget=3")
    assert contents(folder) == before
    path.unlink()
    costs = folder / "sensitivity-n2-v1.npz"
    costs.write_bytes(costs.read_bytes()[:-5] + b"12345")
    with pytest.raises(ScheduleError, match="not the one that sensitivity-n2-v1.json describes.*restore both files"):
        make("cache.budget=3")


@pytest.mark.parametrize(
    "text, label",
    [
        ("sacs", "sacs_s10"),
        ("sacs_s7", "sacs_s7"),
        ("sacs_s10@ddim16", "sacs_s10"),
        ("sacs_s5@ancestral10", "sacs_s5"),
        ("sacs_g2.5", "sacs_g2.5"),
        ("sacs_ms8_x@ddim16", "sacs_ms8_x"),
    ],
)
def test_methods_are_named_by_their_labels(text, label):
    method = parse_method(text)
    assert method.label == label and parse_method(label).label == label
    for wrong in ("sacs_x", "sacs_s", "sacs_s2.5", "sacs_q3", "sacs_s7_y"):
        with pytest.raises(ConfigError, match="is not known"):
            parse_method(wrong)
