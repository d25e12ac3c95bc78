"""The schemas of all commands: right settings pass unchanged, wrong kinds never do, texts stay as they were typed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bac.acs import OBJECTIVES
from bac.horizon import HORIZONS
from bac.runtime.choose import RUNTIMES
from bac.similarity import METRICS
from bac_workbench.settings import check, read_arguments
from bac_workbench.settings.caches import CACHES
from bac_workbench.settings.launch import check_command_line
from bac_workbench.settings.sampler import SAMPLER_TYPES
from bac_workbench.settings.schema import SCHEMAS, field_at, field_problems, fields, kind_of, schema_of
from tests.conftest import ROOT
from tests.experiments.composed_settings import HYDRA, TASKS, checked, composed, nested


# ---- what is right passes ----
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", ["eval", "train"])
def test_every_task_passes_and_nothing_is_changed(command, task):
    before = composed(command, task=task)
    after = composed(command, task=task)
    check(after, command, [])
    assert OmegaConf.to_container(after, resolve=False) == OmegaConf.to_container(before, resolve=False)


@pytest.mark.parametrize(
    "command, task",
    [
        ("benchmark", "can_ph"),
        ("profile_blocks", "kitchen_scripted_demos"),
        ("make_demos", "lift_scripted_demos"),
        ("convert_actions", "can_ph"),
    ],
)
def test_every_other_command_passes(command, task):
    checked(command, task=task)


@pytest.mark.parametrize(
    "overrides",
    [
        ["cache=full"],
        ["cache=uniform", "cache.budget=7"],
        ["cache=blockwise_acs", "cache.metric=l2"],
        ["cache.forced_refresh=[99]"],
        ["cache.forced_refresh=null"],
        ["sampler=ddim16"],
        ["sampler.type=ddim", "sampler.steps=17"],
        ["sampler.type=null", "sampler.steps=null"],
        ["sampler.type=checkpoint"],
        ["++sampler.eta=0.5"],
        ["++sampler.timestep_spacing=trailing"],
        ["eval.n_test=0", "eval.n_train=6"],
        ["threads=4", "seed=9223372036854775807"],
        ["eval.n_workers=0"],
        ["output_dir=a b"],
        ["output_dir=/tmp/x/y"],
        ["++seed=3"],
        ["++task.environment.max_steps=4"],
        ["task.environment.max_steps=24"],
        ["precision=bf16"],
        ["runtime=compiled"],
        ["runtime=reference"],
        ["weights=raw"],
        ["profile.noise_seeds=[3]"],
        ["wandb.mode=offline"],
        ["output_dir=${task.name}/x"],
        ["benchmark.n_chunks=0", "eval.n_videos=0"],
        ["hydra.run.dir=x"],
        ["device=cpu"],
    ],
)
def test_right_settings_of_eval_pass(overrides):
    checked("eval", *overrides)
    check_command_line(["task=pusht_lowdim", *overrides], "eval")


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.learning_rate=0.0"],
        ["training.learning_rate=1"],
        ["training.snr_gamma=5"],
        ["training.validate_every=0"],
        ["+ema.min_value=0.1", "+ema.update_after_step=5"],
        ["init_checkpoint=x"],
        ["objective=condition", "objective.auxiliary_targets={object_pose: 3}"],
        ["objective=condition", "+objective.auxiliary_targets.object_pose=3"],
        ["objective=frozen_encoder", "init_checkpoint=x"],
        ["task.policy.model.n_layer=1", "task.policy.model.n_emb=32"],
        ["training.max_steps=1", "training.num_workers=2"],
    ],
)
def test_right_settings_of_train_pass(overrides):
    checked("train", *overrides)
    check_command_line(["task=pusht_lowdim", *overrides], "train")


# ---- wrong kinds of values never pass ----


@pytest.mark.parametrize("command", SCHEMAS)
def test_no_setting_takes_values_of_every_kind(command):
    """Whatever is accepted of a range of odd values is of the setting's own type."""
    schema = schema_of(command)
    odd = [-1, 4.7, float("nan"), float("inf"), True, "abc", "", None, [], {}, [None], {"a": 1}, 10**30, b"x"]
    for name, field in fields(schema):
        kind = kind_of(field)
        assert kind is not None, f"{name} says nothing of what is allowed"
        accepted = [value for value in odd if not field_problems(schema, nested(name, value))]
        assert len(accepted) <= 4, f"{name} accepts {accepted}"
        assert (None in accepted) == kind.null
        assert not any(isinstance(value, dict) or isinstance(value, bytes) or value == "" for value in accepted)
        assert not any(isinstance(value, float) and value != 4.7 for value in accepted)


@given(
    value=st.one_of(
        st.floats(), st.booleans(), st.text(), st.none(), st.integers(max_value=-1), st.integers(min_value=2**63)
    )
)
def test_only_whole_numbers_in_range_are_seeds(value):
    assert field_problems(schema_of("eval"), {"seed": value}).keys() == {"seed"}


@given(value=st.integers(0, 2**63 - 1))
def test_whole_numbers_in_range_are_seeds(value):
    assert not field_problems(schema_of("eval"), {"seed": value})


def test_choices_are_those_of_the_code_that_reads_them():
    read = {
        "runtime": RUNTIMES,
        "horizon": HORIZONS,
        "cache.method": CACHES,
        "cache.metric": METRICS,
        "cache.objective": OBJECTIVES,
        "sampler.type": ("checkpoint", *SAMPLER_TYPES),
    }
    choices = {name: kind_of(field_at(schema_of("eval"), name)).choices for name in read}
    assert choices == {name: tuple(values) for name, values in read.items()}


@pytest.mark.parametrize("command", HYDRA)
def test_every_setting_of_a_command_has_a_schema(command):
    cfg = OmegaConf.load(ROOT / "config" / f"{command}.yaml")

    def check_known(node: Any, prefix: str = "") -> None:
        for name in node:
            if prefix or name not in ("defaults", "hydra"):
                assert field_at(schema_of(command), prefix + name) is not None, prefix + name
                value = OmegaConf.to_container(node, resolve=False)[name]
                if isinstance(value, dict):
                    check_known(OmegaConf.create(value), f"{prefix}{name}.")

    check_known(cfg)


def test_unknown_keys_of_a_config_are_left_alone():
    cfg = composed("eval")
    OmegaConf.set_struct(cfg, False)
    cfg.eval.own, cfg.task.own, cfg.mine = "x", {"a": -1}, [1]
    check(cfg, "eval", [])


# ---- texts ----
@pytest.mark.parametrize(
    "text", ["20240601", "007", "1e5", "1_000", "true", "False", "1.50", "-5", "nan", "inf", "0x10", "2024-06-01", "5"]
)
@pytest.mark.parametrize(
    "command, names",
    [
        ("eval", ["output_dir", "checkpoint", "wandb.project"]),
        ("train", ["output_dir", "task.dataset.zarr_path"]),
        ("benchmark", ["assets_dir"]),
    ],
)
def test_a_text_stays_as_it_was_typed(command, names, text):
    found = checked(command, *(f"{name}={text}" for name in names))
    assert [OmegaConf.select(found, name) for name in names] == [text] * len(names)


@given(
    st.integers(0, 10**20).map(str)
    | st.from_regex("0[0-9]{1,8}", fullmatch=True)
    | st.from_regex("[0-9]{1,4}e[0-9]{1,3}", fullmatch=True)
)
def test_numeric_folder_names_are_texts(text):
    cfg = OmegaConf.create({"output_dir": None, "task": {"name": "x"}})
    OmegaConf.update(cfg, "output_dir", float(text) if "e" in text else int(text))
    assert check(cfg, "eval", [f"output_dir={text}"]).output_dir == text


def test_texts_that_others_take_over_follow():
    cfg = checked("train", "task.name=007")
    assert cfg.task.name == "007" and cfg.output_dir == "results/007/train"
    assert checked("eval", "task.checkpoint=5").checkpoint == "5"


def test_lists_of_texts_stay_as_they_were_typed():
    cfg = checked("train", "task.dataset.further_paths=[2024,1e5,007]", task="block_pushing")
    assert list(cfg.task.dataset.further_paths) == ["2024", "1e5", "007"]


def test_quotes_of_hydra_are_no_part_of_a_text():
    assert (
        checked("eval", 'output_dir="a=b"').output_dir == "a=b"
        and checked("eval", "output_dir='007'").output_dir == "007"
    )


def test_null_stays_null_where_it_has_a_meaning():
    cfg = checked("eval", "output_dir=null", "threads=null")
    assert cfg.output_dir is None and cfg.threads is None


@pytest.mark.parametrize("output", ["20240601", "007", "1e5", "true", "[", "a=b", "0.10"])
def test_arguments_without_hydra_keep_texts_too(output):
    defaults = {"checkpoint": None, "output": None, "weights": "ema", "half": True, "overwrite": False}
    values = read_arguments(["checkpoint=5", f"output={output}", "half=false"], "convert_checkpoint", defaults)
    assert values == {**defaults, "checkpoint": "5", "output": output, "half": False}


def test_a_sha256_of_digits_alone_keeps_its_zeros():
    defaults = {"task": None, "verify": False, "data_dir": "data", "url": None, "sha256": None}
    assert read_arguments([f"sha256=00{'A1' * 31}"], "download_data", defaults)["sha256"] == f"00{'a1' * 31}"
    assert read_arguments([f"sha256={'0' * 63}1"], "download_data", defaults)["sha256"] == f"{'0' * 63}1"


@pytest.mark.parametrize("url", ["https://host/a", "http://127.0.0.1:80", "file:///tmp/x.zip", "http://[::1]:8000/x"])
def test_addresses_pass(url):
    defaults = {"task": None, "verify": False, "data_dir": "data", "url": None, "sha256": None}
    assert read_arguments([f"url={url}"], "download_data", defaults)["url"] == url
