"""Generated pages are those that data, schemas and task files give now: python -m docs.generate writes them again."""

from __future__ import annotations

import re

import pytest

from bac_workbench.evaluation.statistics import clustered_difference
from bac_workbench.reporting.names import TITLES, label
from bac_workbench.settings.schema import SCHEMAS, schema_of
from docs.figures import make_concepts, make_scores, make_surge
from docs.generate import configuration, frontier, observations, readme, results_pages
from docs.generate.__main__ import pages
from docs.generate.stored import RESULTS, ROOT, read_frontier, read_task

GENERATED = pages()
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+")
VERSIONS = {"3.11", "3.12", "3.13", "2506.13456"}  # of Python; the paper's number


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_is_the_generated_one(path):
    assert path.read_text(encoding="utf-8") == GENERATED[path], "run: python -m docs.generate"


def test_every_stored_result_is_on_a_page():
    names = {path.name for path in RESULTS.glob("*.json")}
    linked = set(re.findall(r"\]\(([\w.]+\.json)\)", "".join(GENERATED.values())))
    assert names == linked
    tasks = {path.name.removesuffix("_frontier.json") for path in RESULTS.glob("*_frontier.json")}
    assert tasks == set(TITLES)


# ---- numbers ----
def test_numbers_of_the_readme_come_from_stored_results():
    """What is measured stands between the marks, where it is generated; elsewhere there are no such numbers."""
    text = readme.README.read_text(encoding="utf-8")
    by_hand = text.split(readme.BEGIN)[0] + text.split(readme.END)[1]
    assert set(DECIMAL.findall(by_hand)) <= VERSIONS
    assert len(DECIMAL.findall(readme.block())) > 30


@pytest.mark.parametrize("note", sorted(results_pages.NOTES.glob("*.md")), ids=lambda note: note.stem)
def test_numbers_of_a_result_page_come_from_stored_results(note):
    assert not DECIMAL.findall(note.read_text(encoding="utf-8"))


def test_a_changed_result_changes_the_pages(monkeypatch):
    task = read_task("pusht_lowdim")
    task.row("bac_s10")["mean_score"] = 0.123
    monkeypatch.setattr(results_pages, "read_task", lambda name: task if name == "pusht_lowdim" else read_task(name))
    assert "0.123" in results_pages.task_page("pusht_lowdim")


def test_a_changed_result_of_the_frontier_changes_its_page_the_overview_and_the_readme(monkeypatch):
    fastest = read_frontier("pusht_lowdim")
    fastest.row("bac_s10")["mean_score"] = 0.123
    fastest.row("bac_s10")["paired_difference"]["mean"] = -0.876
    for module in (results_pages, frontier, readme):
        monkeypatch.setattr(
            module, "read_frontier", lambda name: fastest if name == fastest.task else read_frontier(name)
        )
    assert "0.123" in results_pages.task_page("pusht_lowdim") and "0.123" in readme.block()
    assert "-0.876" in results_pages.index_page() and "-0.876" in readme.block()


def test_what_is_proven_is_what_the_certificate_says():
    found = frontier.certificate("pusht_lowdim")
    assert f"p = {found['claim']['p_value']:.4f}" in " ".join(results_pages.task_page("pusht_lowdim").split())
    assert f"| {found['claim']['n']} |" in readme.block()
    assert frontier.proven("a task without one") == ""


def test_speedups_are_ratios_within_one_runtime():
    timed = read_task("pusht_lowdim").benchmark
    assert timed.speedup("full", "compiled") == 1
    assert timed.speedup("bac_s10", "compiled") == pytest.approx(115.33 / 24.643)
    with pytest.raises(KeyError, match="not timed"):
        timed.milliseconds("bac_s15", "compiled")


@pytest.mark.parametrize(
    "method, sampler, name",
    [
        ("full", "ddpm100", "full policy (DDPM-100)"),
        ("full", "ddim16", "DDIM-16"),
        ("bac_s8", "ddim16", "BAC, budget 8, on DDIM-16"),
        ("full", "ancestral5", "ancestral-5"),
        ("sacs_s10", "ddim16-even", "S-ACS, budget 10, on DDIM-16 (even)"),
        ("bac_s10_r99", "ddpm100", "BAC, budget 10, refresh at step 99"),
    ],
)
def test_methods_have_plain_names(method, sampler, name):
    assert label(method, sampler) == name


# ---- what the pages say in words ----
def test_the_words_of_the_pages_are_true_of_the_stored_results():
    """Where this fails, data were replaced: read docs/generate/notes and the README again."""
    pusht, (_, pushing, kitchen, lift, can) = read_task("pusht_lowdim"), map(read_frontier, TITLES)
    score = {key: pusht.row(key)["mean_score"] for key in ("blockwise_acs_s10", "uniform_s10", "bac_s10", "bac_s20")}
    assert score["blockwise_acs_s10"] < score["uniform_s10"] < score["bac_s10"] < score["bac_s20"]
    for even, adaptive in (("uniform_s15", "bac_s10"), ("uniform_s27", "bac_s20")):
        assert abs(pusht.row(even)["block_updates"] - pusht.row(adaptive)["block_updates"]) < 10
        own, base = (pusht.row(key)["scores"]["0"] for key in (adaptive, even))
        paired = clustered_difference([own[seed] for seed in base], list(base.values()), list(base))
        assert paired.low < 0 < paired.high
        assert pusht.row(even)["gflop_per_chunk"] < pusht.row(adaptive)["gflop_per_chunk"]
    own_sampler = [row for row in pusht.rows if row["sampler"] == "ddpm100" and row["method"].startswith("bac")]
    assert all(pusht.row("full@ddim10")["gflop_per_chunk"] < row["gflop_per_chunk"] for row in own_sampler)
    assert pushing.row("uniform_s10")["mean_score"] > 0.95
    without = [row for row in pushing.rows if row["method"] == "full"]
    assert min(without, key=lambda row: row["gflop_per_chunk"])["sampler"] == "ancestral5"
    assert kitchen.row("uniform_s10")["metrics"]["p4"]["mean"] == 0 and can.row("uniform_s10")["mean_score"] < 0.1
    assert lift.row("full@ancestral5")["mean_score"] == 1
    assert lift.row("full@ancestral5")["env_steps"] < lift.row("full@ancestral5")["reference_env_steps"]
    assert lift.row("uniform_s10")["mean_score"] < lift.row("bac_s10")["mean_score"]
    assert "all 4 of these" in readme.block()  # BAC as published loses to DDIM with fewer steps
    fastest = {results.task: results for results in frontier.stored()}
    assert list(fastest) == list(TITLES)
    for task in (lift.task, can.task):  # docs/limits.md
        timed = fastest[task].benchmark.row("full@ancestral5", "compiled")
        assert timed["encoder_ms_p50"] > timed["ms_p50"] / 2 and 5.5 < timed["encoder_ms_p50"] < 6.5
    for task, results in fastest.items():
        verdicts = {key: results.row(key)["noninferiority"]["result"] for key in ("bac_s10", "full@ancestral5")}
        others = {"block_pushing": "shown", "lift_scripted_demos": "not shown"}
        assert verdicts["bac_s10"] == others.get(task, "refuted")
        assert verdicts["full@ancestral5"] == "shown"
        assert results.row("sacs_s10")["mean_score"] > results.row("bac_s10")["mean_score"] - 0.01


# ---- settings and observations ----
@pytest.mark.parametrize("command", SCHEMAS)
def test_every_setting_is_documented_with_its_meaning(command):
    page = GENERATED[configuration.PAGE]
    for name, _ in configuration.present(schema_of(command)):
        rows = re.findall(rf"^\| `{re.escape(name)}` \|.*\| (.*) \|$", page, re.MULTILINE)
        assert rows and all(rows), f"{name} has no meaning: add a comment in config/, or to docs/generate/meanings.yaml"


def test_defaults_are_those_of_the_files():
    page = GENERATED[configuration.PAGE]
    assert "| `eval.n_test` | `50` |" in page and "| `cache.top_k` | `5` |" in page
    assert "| `training.grad_clip` | `1.0` |" in page


@pytest.mark.parametrize("task", observations.task_names())
def test_the_parts_of_an_observation_are_all_of_it(task):
    config = observations.task_config(task)
    documented = observations.dictionary(config)
    assert f"`{task}`" in GENERATED[observations.PAGE]
    if documented.images:
        shapes = {name: tuple(field.shape) for name, field in config.shape_meta.obs.items()}
        assert {part.name: part.size for part in documented.observation} == shapes
        assert sum(part.size for part in documented.action) == config.shape_meta.action.shape[0]
    else:
        assert sum(part.size for part in documented.observation) == config.obs_dim
        assert sum(part.size for part in documented.action) == config.action_dim


# ---- pictures ----
def test_the_pictures_are_drawn(tmp_path):
    paths = [*make_scores.main(tmp_path), make_concepts.main(tmp_path / "concepts.png")]
    paths.append(make_surge.main(tmp_path / "error_surge_pusht.png"))
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG") and (make_concepts.FIGURES / path.name).exists()
