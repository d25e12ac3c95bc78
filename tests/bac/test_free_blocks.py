"""Blocks of any model in schedules, matrices and files: what is known of them goes along."""

import copy
import json
import pickle

import numpy as np
import pytest

from bac.acs import unified_acs
from bac.blocks import Block, decoder_blocks, downstream_ffns, execution_order, is_ffn, parse
from bac.bua import bac
from bac.figures import plot_errors, plot_schedule, plot_similarity
from bac.holding import HoldingCosts
from bac.profile_matrices import Profile, ProfileInfo
from bac.schedule import Schedule, ScheduleError
from bac.sensitivity_files import SensitivityInfo
from bac.sensitivity_files import load as load_costs
from bac.sensitivity_files import save as save_costs
from bac.similarity import METRICS, pairwise

BLOCKS = tuple(
    Block(f"blocks.{layer}.{name}", kind, layer)
    for layer in range(2)
    for name, kind in (("attn", "sa"), ("cross_attn", "ca"), ("mlp", "ffn"))
)
INFO = ProfileInfo("abc", "raw", "euler", 6, 1, (0,), "somewhere")


@pytest.fixture
def matrices():
    numbers = np.random.default_rng(0)
    features = {block: numbers.normal(size=(6, 8)).cumsum(axis=0) for block in BLOCKS}
    return {metric: {block: pairwise(f, metric) for block, f in features.items()} for metric in METRICS}


def kinds(blocks):
    return [(str(block), block.kind, block.layer) for block in blocks]


def test_a_block_is_its_name_and_knows_more():
    block = Block("layers.3:_sa_block", "sa", 3)
    assert block == "layers.3:_sa_block" and {block: 1}["layers.3:_sa_block"] == 1
    for made in (copy.deepcopy(block), pickle.loads(pickle.dumps(block)), parse(block)):
        assert kinds([made]) == [("layers.3:_sa_block", "sa", 3)]
    assert not is_ffn(block) and is_ffn(Block("mlp", "ffn")) and not is_ffn(Block("gate"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("",), "cannot name"), (("a b",), "cannot name"), (("a" * 201,), "cannot name"), ((3,), "cannot name"),
     (("a", "mlp"), "use sa, ca, ffn, other"), (("a", "sa", -1), "from 0"), (("a", "sa", True), "from 0")],
)  # fmt: skip
def test_impossible_blocks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Block(*arguments)


def test_free_blocks_stay_in_the_order_they_come_in():
    turned = tuple(reversed(BLOCKS))
    assert execution_order(turned) == turned
    with pytest.raises(ValueError, match="mixed"):
        execution_order([BLOCKS[0], decoder_blocks(1)[0]])
    with pytest.raises(ValueError, match="different layers.*0.sa"):
        execution_order([Block("a", "sa"), Block("b", "sa")])
    with pytest.raises(ValueError, match="more than once"):
        execution_order([Block("a", "sa", 0), Block("a", "sa", 1)])


def test_downstream_are_the_ffns_that_run_later():
    assert downstream_ffns("blocks.0.attn", BLOCKS) == ("blocks.0.mlp", "blocks.1.mlp")
    assert downstream_ffns("blocks.0.mlp", BLOCKS) == ("blocks.1.mlp",)
    before = (Block("mlp", "ffn"), Block("attn", "sa"))  # an FFN that runs first is not disturbed by what follows
    assert downstream_ffns("attn", before) == ()


def test_bac_repairs_free_blocks_as_it_does_those_of_the_paper(matrices):
    """The same numbers under the names of a Transformer Diffusion Policy give the same decisions."""
    names = dict(zip(BLOCKS, decoder_blocks(2)))
    renamed = {metric: {names[block]: m for block, m in of.items()} for metric, of in matrices.items()}
    free = bac(matrices["cosine"], matrices["l1"], 2, top_k=3)
    known = bac(renamed["cosine"], renamed["l1"], 2, top_k=3)
    np.testing.assert_array_equal(free.updates, known.updates)
    assert [names[block] for block in free.provenance.repaired] == list(known.provenance.repaired)
    shared = unified_acs(matrices["cosine"], 2)
    assert shared.provenance.extras["source"] == BLOCKS[0] and len(set(map(tuple, shared.update_steps.values()))) == 1


def test_stored_schedules_keep_kinds_and_layers(tmp_path, matrices):
    schedule = bac(matrices["cosine"], matrices["l1"], 2, top_k=2)
    schedule.save(tmp_path / "bac.json")
    loaded = Schedule.load(tmp_path / "bac.json")
    assert loaded == schedule and kinds(loaded.blocks) == kinds(BLOCKS)
    assert "1.ffn" in str(loaded) and str(loaded).splitlines()[2].startswith("model ")


def test_files_of_known_names_are_as_they_were(tmp_path):
    Schedule.full(decoder_blocks(1), 2).save(tmp_path / "full.json")
    assert "blocks" not in json.loads((tmp_path / "full.json").read_text())


@pytest.mark.parametrize(
    ("blocks", "message"),
    [([["blocks.0.attn", "sa"]], "must be a list of"), ([["a", "sa", 0]], "same blocks"), ([["a", "b", 0]], "kind"),
     ("blocks", "must be a list of"), ([["blocks.0.attn", ["sa"], 0]], "kind")],
)  # fmt: skip
def test_damaged_blocks_are_refused(tmp_path, blocks, message):
    Schedule.full(BLOCKS[:1], 2).save(tmp_path / "full.json")
    data = json.loads((tmp_path / "full.json").read_text())
    (tmp_path / "full.json").write_text(json.dumps({**data, "blocks": blocks}))
    with pytest.raises(ScheduleError, match=message):
        Schedule.load(tmp_path / "full.json")


def test_stored_profiles_and_costs_keep_kinds_and_layers(tmp_path, matrices):
    Profile(INFO, matrices).save(tmp_path)
    assert kinds(Profile.load(tmp_path).blocks) == kinds(BLOCKS)
    assert Profile.read_info(tmp_path) == INFO
    costs = HoldingCosts(BLOCKS, np.ones((len(BLOCKS), 6, 6)))
    save_costs(SensitivityInfo(INFO, 2, (0, 1)), costs, tmp_path, "costs")
    assert kinds(load_costs(tmp_path, "costs")[1].blocks) == kinds(BLOCKS)


def test_pictures_show_every_block(tmp_path, matrices):
    schedule = bac(matrices["cosine"], matrices["l1"], 2, top_k=2)
    plot_schedule(schedule, tmp_path / "schedule.svg")
    plot_similarity(matrices["l1"], tmp_path / "similarity.svg", "l1")
    plot_errors(dict.fromkeys(BLOCKS, 1.0), tmp_path / "errors.svg")
    assert all((tmp_path / f"{name}.svg").stat().st_size for name in ("schedule", "similarity", "errors"))
