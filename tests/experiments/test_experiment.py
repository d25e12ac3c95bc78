"""An experiment stays as it is: another sampler or cache is another experiment; the policy keeps its own sampler."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from pydantic import ValidationError

from bac.schedule import Schedule
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.settings.caches import CACHES, Cache, Uniform, make_cache, register
from bac_workbench.settings.methods import CACHE_FILES, named_cache
from bac_workbench.settings.sampler import DIFFUSERS_TYPES
from bac_workbench.settings.sampler_names import section_of
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.setup.samplers import SCHEDULERS, build_sampler, name_of
from diffusion_policy.common.config import ConfigError
from diffusion_policy.policy.diffusion_sampler import DiffusionSampler
from diffusion_policy.policy.flow_matching import FlowMatching

pytest.importorskip("pymunk")


@pytest.fixture
def experiment(make_settings):
    return load_experiment(make_settings("cache=uniform", "cache.budget=2"))


def test_another_sampler_or_cache_is_another_experiment_of_the_same_policy(experiment):
    faster = experiment.with_sampler({"type": "ddim", "steps": 3}).with_cache(Uniform(budget=1))
    assert (experiment.sampler_name, experiment.cache.label) == ("ddpm8", "uniform_s2")
    assert (faster.sampler_name, faster.cache.label) == ("ddim3", "uniform_s1")
    assert faster.sampler_settings == {
        "type": "ddim",
        "steps": 3,
        "name": "ddim3",
        "timesteps": [92, 26, 4],
        "coupled": False,
    }
    assert faster.policy is experiment.policy and faster.with_sampler({}).sampler is experiment.own_sampler
    assert faster.to_dict()["sampler"]["name"] == "ddim3" and faster.to_dict()["seed"] == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.cache = faster.cache


def test_a_policy_has_its_own_sampler_back_also_after_an_error(experiment):
    policy = experiment.policy
    assert policy.sampler is experiment.own_sampler is not experiment.sampler
    with pytest.raises(RuntimeError, match="stop"), experiment.attached() as attached:
        assert attached is policy and policy.sampler is experiment.sampler
        raise RuntimeError("stop")
    assert policy.sampler is experiment.own_sampler


def test_settings_cannot_be_changed_and_give_plain_values(make_settings):
    settings = make_settings("cache=uniform", "cache.budget=2", "seed=5")
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 6
    with pytest.raises(ValidationError, match="frozen"):
        settings.eval.n_envs = 6
    assert (settings.seed, settings.replace(seed=6).seed, settings.to_dict()["seed"]) == (5, 6, 5)
    assert settings.to_dict()["task"]["environment"]["_target_"] and "sampler" in settings and "colour" not in settings


# ---- caching methods ----
def test_every_method_has_a_file_with_its_settings():
    assert {path.stem for path in CACHE_FILES.glob("*.yaml")} == set(CACHES)
    for name, cls in CACHES.items():
        cache = named_cache(name)
        assert type(cache) is cls and cache.method == name and cache.label.startswith(name)


def test_settings_of_a_method_that_are_missing_are_named():
    with pytest.raises(ConfigError, match="cache.method=bac: cache.objective, cache.top_k missing; .*cache=bac"):
        make_cache({"method": "bac", "budget": 3, "metric": "l1"})
    with pytest.raises(ConfigError, match="cache.method=fast is unknown: use full, uniform, "):
        make_cache({"method": "fast"})


def test_a_further_method_is_one_class(experiment, monkeypatch):
    monkeypatch.setitem(CACHES, "first_half", None)  # taken away again at the end

    @register("first_half")
    class FirstHalf(Cache):
        @property
        def label(self):
            return self.method

        def schedule(self, blocks, steps, profile=None):
            return Schedule.from_steps(dict.fromkeys(blocks, range(steps // 2)), steps)

    schedule = schedule_for(experiment.with_cache(make_cache({"method": "first_half"})))
    assert schedule.active_steps == (0, 1, 2, 3)


def test_the_settings_name_the_samplers_that_there_are():
    assert tuple(SCHEDULERS) == (*DIFFUSERS_TYPES, "flow")


def test_a_flow_is_sampled_in_other_numbers_of_steps_and_on_no_other_grid():
    flow = DiffusionSampler(torch.nn.Identity(), FlowMatching(100), 10)
    sampler = build_sampler(flow, section_of("flow4"))
    assert sampler.num_inference_steps == 4 and name_of(sampler, flow) == "flow4"
    with pytest.raises(ConfigError, match="leave all but sampler.steps out"):
        build_sampler(flow, {"type": "flow", "timesteps": [9, 4]})
