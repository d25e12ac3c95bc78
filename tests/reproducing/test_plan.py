"""What `bac reproduce` is asked for, what it finds, and what it says of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from bac_workbench.commands.reproduce import DEFAULTS
from bac_workbench.reproducing.cells import Cell, methods_of, overrides_of
from bac_workbench.reproducing.duration import Pace, told
from bac_workbench.reproducing.published import BUDGET
from bac_workbench.reproducing.sources import Source, require_all, sources_of
from bac_workbench.settings import read_arguments
from bac_workbench.settings.methods import parse_method
from bac_workbench.settings.reproducing import Reproduce, split
from bac_workbench.setup.task_files import TaskFile
from bac_workbench.setup.trainings import BEST, LAST
from diffusion_policy.common.config import ConfigError

SOURCE = Source(TaskFile("pusht_lowdim", "pusht_lowdim", None))


def asked(*arguments: str) -> Reproduce:
    own, others = split(arguments)
    assert not others
    return Reproduce.model_validate(read_arguments(own, "reproduce", DEFAULTS))


# ---- arguments ----
def test_options_and_settings_are_the_same():
    dashed = asked("--tasks", "pusht_lowdim,can_ph", "--seeds=0,1,2", "--n-test", "7", "--dry-run", "--missing", "skip")
    plain = asked("tasks=[pusht_lowdim,can_ph]", "seeds=[0,1,2]", "n_test=7", "dry_run=true", "missing=skip")
    commas = asked("tasks=pusht_lowdim,can_ph", "seeds=0,1,2", "n_test=7", "dry_run=true", "missing=skip")
    assert dashed == plain == commas
    assert plain.tasks == ["pusht_lowdim", "can_ph"] and plain.seeds == [0, 1, 2] and plain.dry_run


def test_what_is_no_setting_of_its_own_goes_to_the_evaluations():
    own, others = split(["n_test=3", "eval.n_envs=2", "launcher=joblib", "hydra.launcher.partition=gpu"])
    assert own == ["n_test=3"] and others == ["eval.n_envs=2", "launcher=joblib", "hydra.launcher.partition=gpu"]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--task", "x"], "no such option"),
        (["--seeds"], "give it a value"),
        (["seeds=-1"], "use a list"),
        (["seeds=0,0"], "without repeats"),
        (["n_test=0"], "from 1"),
        (["tables=3"], "from 1 to 2"),
        (["missing=maybe"], "error or skip"),
        (["trainings=3"], "from 0 to 2"),
    ],
)
def test_wrong_arguments_are_told(arguments, says):
    with pytest.raises(ConfigError, match=says):
        asked(*arguments)


@pytest.mark.parametrize(
    "other",
    ["task=can_ph", "cache.budget=3", "sampler=ddim16", "seed=1", "eval.n_test=2", "+train=0", "overwrite=true"],
)
def test_what_the_cells_differ_in_is_refused_for_all_of_them(other):
    ((name, says),) = asked().problems([other])
    assert other.lstrip("+").startswith(name.split(".")[0]) and "use " in says


def test_other_settings_are_for_all_cells():
    assert not list(
        asked().problems(["task.environment.max_steps=9", "eval.n_envs=2", "device=cpu", "wandb.mode=offline"])
    )


# ---- methods ----
@pytest.mark.parametrize("tables", ["[1]", "[2]", "[1,2]"])
def test_every_table_has_the_full_policy_and_bac_at_the_papers_budget(tables):
    rows = methods_of(asked(f"tables={tables}", "budgets=[7]"))
    assert rows[0] == "full" and f"bac_s{BUDGET}" in rows and len(rows) == len(set(rows))
    assert ("bac_s7" in rows) == ("1" in tables) and (f"unified_acs_s{BUDGET}" in rows) == ("2" in tables)


@pytest.mark.parametrize("method", ["full", "bac_s7", "uniform_every9", "full@ddim16", "bac_s4@ddim16-even", "tuned"])
def test_what_eval_is_told_makes_the_method(method):
    given = dict(text.split("=", 1) for text in overrides_of(method))
    parsed = parse_method(method)
    assert given.pop("cache") == parsed.cache.method
    for name, value in parsed.sampler.items():
        assert given.pop(f"sampler.{name}") == str(value)
    assert all(str(getattr(parsed.cache, name.removeprefix("cache."))) == value for name, value in given.items())


# ---- policies ----
def test_without_tasks_those_with_a_policy_here_are_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = sources_of(asked(), [])
    assert "pusht_lowdim" in [source.task.choice for source in found.here]
    assert "can_ph" in found.elsewhere and not found.lacking
    require_all(found)


def test_missing_trainings_are_named_with_the_command_that_gets_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoint/can_ph/diffusion_policy_transformer/train_1/checkpoints"
    folder.mkdir(parents=True)
    (folder / "latest.ckpt").touch()
    settings = asked("tasks=can_ph", "trainings=0,1")
    found = sources_of(settings, [])
    assert [source.words for source in found.here] == ["can_ph train=1 checkpoint_type=avg"]
    assert [(item.training.train, item.training.kind) for item in found.lacking] == [(0, BEST), (0, LAST), (1, BEST)]
    with pytest.raises(ConfigError) as error:
        require_all(found)
    assert "bac checkpoint download task=can_ph train=0 name=best" in str(error.value)
    assert "missing=skip" in str(error.value) and "download=true" in str(error.value)
    fetched = sources_of(settings, ["download=true"])
    assert len(fetched.here) == 4 and not fetched.lacking


def test_a_task_without_published_trainings_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="nobody publishes"):
        sources_of(asked("tasks=kitchen_scripted_demos", "trainings=0"), [])
    with pytest.raises(ConfigError, match="did you mean can_ph"):
        sources_of(asked("tasks=can_hp"), [])


# ---- how long ----
def test_a_cell_takes_the_longer_the_more_it_computes_and_lacks():
    pace = Pace(policy=1.0, environment=0.1, chunks=10, n_envs=5, steps=100)

    def seconds(method: str, done: int = 0) -> float:
        return pace.seconds(Cell(SOURCE, method, method, 0, Path("x"), (), "missing", done, 20))

    assert seconds("full") > seconds("bac_s20") > seconds("bac_s10") > seconds("full", done=20) == 0
    assert seconds("full") == 2 * seconds("full", done=10) == pytest.approx(4 * 10 * 1.1)
    assert seconds("full@ddim16") < seconds("full") and [told(80), told(600), told(7200)] == ["80 s", "10 min", "2.0 h"]
