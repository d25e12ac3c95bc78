"""Rollouts of a tuning's candidates in cells: the same episodes as one after the other, each of them once."""

from __future__ import annotations

import pytest

from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.tuning.beside import roll_out_candidate
from bac_workbench.tuning.candidates import FULL, make_candidates
from bac_workbench.tuning.episodes import Block

pytest.importorskip("pymunk")

METHODS = ["full@ddim3", "uniform_s2@ddim4"]
SMALL = ["runtime=planned", "rollouts.n_envs=2", "rollouts.n_workers=0", "task.environment.max_steps=8"]


@pytest.fixture
def cfg(make_cfg):
    return make_cfg(*SMALL, script="tune")


@pytest.fixture
def candidates(cfg):
    return make_candidates(load_experiment(check(cfg, "tune", SMALL)), METHODS, ["fp32"], print)


def test_cells_leave_the_episodes_of_a_tuning_without_launcher(cfg, candidates, tmp_path):
    handed = []

    def in_cells(block, names, n):
        handed.append((list(names), n))
        for item in (block.candidates[name] for name in names):
            roll_out_candidate(cfg.copy(), item.name, item.method, item.precision, str(block.folder), block.start, n)

    told = {"one": [], "beside": []}
    one = Block(candidates, tmp_path / "one", 300000, print, lambda *seen: told["one"].append(seen))
    beside = Block(candidates, tmp_path / "beside", 300000, print, lambda *seen: told["beside"].append(seen), in_cells)
    for n in (2, 3, 3):  # the last is asked for once more, which runs nothing
        one.prepare(list(candidates.named), n)
        beside.prepare(list(candidates.named), n)
        for name in candidates.named:
            assert beside.play(name, n) == one.play(name, n)
    everyone = [FULL, *candidates.named]
    assert handed == [(everyone, 2), (everyone, 3)]
    for name in everyone:
        rows = [(tmp_path / place / candidates[name].folder / "episodes.jsonl").read_text() for place in told]
        assert sorted(rows[0].splitlines()) == sorted(rows[1].splitlines()) and len(rows[0].splitlines()) == 3
    seen = [sorted((name, result.index) for name, result in episodes) for episodes in told.values()]
    assert seen[0] == seen[1] == sorted(set(seen[1])), "progress counts every episode once"
