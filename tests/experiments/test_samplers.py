"""Which sampler an experiment uses: the checkpoint's own unless asked for another, under the name of what it is."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import open_output_dir
from bac_workbench.settings.methods import parse_method
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.setup.samplers import build_sampler, name_of, resolved
from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.policy_files import save_policy
from tests.conftest import ROOT

pytest.importorskip("pymunk")
OWN = ["sampler=checkpoint", "sampler.steps=null"]


@pytest.fixture
def altered(checkpoint, tmp_path):
    """altered(num_inference_steps, **scheduler) -> a folder of the tiny policy with another sampler in its file."""

    def make(steps, **scheduler):
        config = yaml.safe_load((checkpoint / "config.yaml").read_text())
        config["policy"]["noise_scheduler"].update(scheduler)
        config["policy"]["num_inference_steps"] = steps
        folder = tmp_path / "altered"
        save_policy(folder, load_policy(checkpoint).policy, config, {"weights": "ema", "step": "1"}, half=False)
        return folder

    return make


DDIM = {"_target_": "diffusers.schedulers.scheduling_ddim.DDIMScheduler", "variance_type": None}


def ddim(altered, steps=4):
    folder = altered(steps, **DDIM)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["policy"]["noise_scheduler"]["variance_type"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def run(settings):
    experiment = load_experiment(settings, n_test=settings.eval.n_test, n_train=0)
    return evaluate(experiment, open_output_dir(experiment), lambda text: None)


@pytest.mark.parametrize(
    "overrides, name, steps",
    [
        (OWN, "ddpm100", 100),
        (["sampler=ddim16", "sampler.steps=16"], "ddim16", 16),
        (["sampler.type=ddim"], "ddim8", 8),
        (["sampler.type=ddim", "sampler.eta=0.5"], "ddim8-eta0.5", 8),
        (["sampler.type=ddim", "sampler.timestep_spacing=trailing"], "ddim8-trailing", 8),
        (["sampler.clip_sample=false"], "ddpm8-noclip", 8),
        (["sampler.variance_type=fixed_large"], "ddpm8-fixed_large", 8),
        (["sampler.name=ddpm8"], "ddpm8", 8),
        (
            [
                "sampler.type=ddim",
                "sampler.spacing=leading",
                "+sampler.dynamic_thresholding_ratio=0.9",
                "sampler.thresholding=true",
            ],
            "ddim8-dynamic_thresholding_ratio0.9-thresholding-leading",
            8,
        ),
        (["sampler.type=ddim", "sampler.spacing=trailing", "sampler.timestep_spacing=trailing"], "ddim8-trailing", 8),
        (["sampler.type=ddpm", "sampler.spacing=trailing"], "ddpm8-trailing", 8),
        (["sampler=ancestral5", "sampler.steps=5"], "ancestral5", 5),
        (["sampler.type=ancestral", "sampler.coupled=false"], "ancestral8-uncoupled", 8),
        (["sampler.type=ancestral", "sampler.timesteps=[90,40,3]", "sampler.steps=null"], "ancestral3-at90_40_3", 3),
        (["sampler.type=ddim", "sampler.spacing=even", "sampler.eta=0.5"], "ddim8-even-eta0.5", 8),
        (["sampler.type=ddim", "sampler.coupled=true"], "ddim8-coupled", 8),
        (["sampler.type=dpmpp", "sampler.spacing=even", "sampler.solver_order=1"], "dpmpp8-even-order1", 8),
    ],
)
def test_the_name_is_of_what_runs(make_settings, overrides, name, steps):
    experiment = load_experiment(make_settings(*overrides))
    assert experiment.sampler_name == name == experiment.sampler_settings["name"]
    assert experiment.steps == steps == experiment.sampler_settings["steps"]
    calls = []
    handle = experiment.policy.model.register_forward_hook(lambda *_: calls.append(1))
    with experiment.attached() as policy:
        policy.predict_action(policy.random_observation(1))
    handle.remove()
    assert len(calls) == steps


def test_options_change_what_is_sampled(make_settings):
    def actions(*overrides):
        settings = make_settings("sampler.type=ddim", "sampler.steps=10", *overrides)
        with load_experiment(settings).attached() as policy:
            return policy.predict_action(
                policy.random_observation(1, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(0)
            )["action"]

    plain = actions()
    assert torch.equal(plain, actions("sampler.eta=0.0"))
    for option in ("sampler.eta=0.5", "sampler.timestep_spacing=trailing", "sampler.clip_sample_range=0.1"):
        assert not torch.equal(plain, actions(option))


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["sampler.name=ddpm100"], "sampler.name=ddpm100 is not what these settings are, which is ddpm8"),
        (["sampler.type=ddim", "sampler.name=ddpm8"], "which is ddim8"),
        (["sampler.type=ddim", "sampler.steps=null"], "needs a number of steps"),
        (["sampler.steps=8.5"], "use a whole number from 1"),
        (["sampler.steps=0"], "use a whole number from 1"),
        (["sampler.eta=0.5"], "sampler.eta is no option of a ddpm sampler"),
        (["sampler.type=ddim", "sampler.eta=2"], "of at least 0 and at most 1"),
        (["sampler.type=ddim", "sampler.eta=abc"], "of at least 0 and at most 1"),
        (["sampler.type=ddim", "sampler.variance_type=fixed_large"], "no option of a ddim sampler"),
        (["sampler.variance_type=learned"], "fixed_small, fixed_small_log, fixed_large"),
        (["sampler.timestep_spacing=odd"], "leading, linspace, trailing"),
        (["sampler.spacing=odd"], "use quadratic, three_halves, even, leading, linspace, trailing"),
        (["sampler.spacing=leading", "sampler.timestep_spacing=trailing"], "its other spelling: leave one of them out"),
        (["sampler.type=ancestral", "sampler.timesteps=[4,90]", "sampler.steps=2"], "do not descend"),
        (["sampler.type=ancestral", "sampler.timesteps=[90,4,4]", "sampler.steps=3"], "without repeats"),
        (["sampler.type=ancestral", "sampler.timesteps=[100,4]", "sampler.steps=2"], "leave the range .* 0 to 99"),
        (["sampler.type=ancestral", "sampler.timesteps=[90,4]"], "sampler.steps=8: sampler.timesteps has 2"),
        (["sampler.type=ancestral", "sampler.eta=0.5"], "option of sampler.type=ddim: ancestral has none"),
        (["sampler.type=dpmpp", "sampler.coupled=true"], "ancestral and ddim: dpmpp has none"),
        (["sampler.type=ddpm", "sampler.spacing=even"], "use type=ancestral"),
        (["sampler.spacing=even"], "a ddpm sampler has the spacings of diffusers, .*use sampler.type=ancestral"),
        (["sampler.type=ancestral", "sampler.steps=60", "sampler.spacing=quadratic"], "60 distinct .*spacing=even"),
        (["sampler.type=ancestral", "sampler.steps=null"], "needs a number of steps: add sampler.steps=1 to 100"),
        (["sampler.type=ancestral", "sampler.steps=101"], "use 1 to 100"),
        (["sampler.type=ddim", "sampler.thresholding=true"], "no option of a ddim sampler on a grid.*spacing=leading"),
        (["sampler.type=ddim", "sampler.clip_sample=false"], "True on a grid, as the policy was trained"),
        (["sampler.clip_sample=2"], "sampler.clip_sample=true"),
        (["sampler.solver_order=1"], "no option of a ddpm sampler"),
        (["+sampler.num_train_timesteps=50"], "belongs to the training"),
        (["+sampler.prediction_type=sample"], "belongs to the training"),
        (["+sampler.no_such_thing=1"], "no option of a ddpm sampler: it has"),
        (["sampler.steps_offset=99"], "not possible"),
    ],
)
def test_what_is_impossible_or_would_be_ignored_is_refused(make_settings, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_experiment(make_settings(*overrides))


def test_results_of_a_sampler_given_by_type_and_steps_say_so(make_settings, tmp_path):
    cfg = make_settings("cache=full", "sampler.type=ddim", "sampler.steps=3", "horizon=full", "eval.n_test=1")
    results = run(cfg).results
    provenance = results["provenance"]
    assert results["sampler"] == provenance["sampler"] == provenance["sampler_settings"]["name"] == "ddim3"
    assert (provenance["checkpoint_sampler"], provenance["sampler_steps"]) == ("ddpm100", 3)
    assert results["block_updates"] == {"per_chunk": 18, "full": 18, "plain": 600}
    assert results["flops"]["ratio_full_to_method"] == 1 and results["flops"]["ratio_plain_to_method"] == pytest.approx(
        100 / 3
    )
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["sampler"] == "ddim3"


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
def test_the_plain_policy_is_what_the_checkpoints_file_says(make_settings, altered, kind):
    folder = ddim(altered) if kind == "ddim" else altered(5, num_train_timesteps=5)
    name = {"ddim": "ddim4-leading", "ddpm": "ddpm5"}[kind]
    cfg = make_settings(
        *("cache=full", *OWN, f"checkpoint={folder}", "runtime=reference", "horizon=full"),
        *("benchmark.n_chunks=5", "eval.n_test=1"),
    )
    experiment = load_experiment(cfg)
    assert (
        experiment.sampler_name == experiment.own_sampler_name == name
        and "the checkpoint's own" in experiment.sampler_line
    )
    evaluation = run(cfg)
    assert evaluation.benchmark["plain_policy"]["sampler"] == evaluation.results["sampler"] == name
    assert evaluation.results["flops"]["ratio_plain_to_method"] == 1
    assert 0.4 < evaluation.results["speedup"] < 4  # the same steps on both sides, and at most 16 of 9 tokens


def test_own_step_options_stay_with_the_own_type_only(make_settings, altered):
    folder = ddim(altered)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["policy"]["eta"] = 0.7
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    name = lambda *overrides: load_experiment(make_settings(f"checkpoint={folder}", *overrides)).sampler_name
    assert name(*OWN) == "ddim4-leading-eta0.7" and name() == "ddim8-leading-eta0.7"
    assert name("sampler.type=ddpm") == "ddpm8" and name("sampler.type=ddim", "sampler.eta=0.0") == "ddim8"


def test_methods_name_samplers_that_have_no_file():
    assert parse_method("full@ddpm50").sampler == {"type": "ddpm", "steps": 50}


@pytest.mark.parametrize(
    "name",
    [
        *(path.stem for path in (ROOT / "config" / "sampler").glob("*[0-9].yaml")),
        "ancestral7",
        "ancestral100",
        "ancestral6-even",
        "ancestral5-at92_54_28_9_4",
        "ancestral3-uncoupled",
        "ddim8-leading",
        "ddim8-trailing-eta0.5",
        "ddim5-eta1em05",
        "ddim5-eta0.5-noreclip-coupled",
        "ddim16-even",
        "ddim16-coupled",
        "ddim16-reclip",
        "ddpm50-trailing",
        "dpmpp8-even-order1",
        "dpmpp16-order1",
        "dpmpp3-at90_40_3",
    ],
)
def test_a_methods_sampler_is_that_of_its_name(checkpoint, name):
    own = load_policy(checkpoint).policy.sampler
    section = parse_method(f"full@{name}").sampler
    sampler = build_sampler(own, section)
    assert name_of(sampler, own) == name
    settled = resolved(sampler, own, section)  # what results store says it all
    assert settled["name"] == name and name_of(build_sampler(own, settled), own) == name


@pytest.mark.parametrize(
    "name, message",
    [
        ("euler4", "names an unknown sampler: use ddpm<steps>, ddim<steps>, dpmpp<steps>, ancestral<steps>"),
        ("ancestral5-odd", "-odd is no tag"),
        ("ancestral5-even-leading", "says twice what sampler.spacing is"),
        ("ancestral3-at90_4", "lists 2 timesteps for 3 steps"),
        ("ancestral2-at4_90", "do not descend"),
        ("ancestral5-eta0.5", "ancestral has none"),
        ("dpmpp8-coupled", "dpmpp has none"),
        ("ddpm8-even", "use type=ancestral"),
        ("ddim87-gride752dbd2", "from which no sampler can be made"),
    ],
)
def test_a_methods_sampler_that_cannot_be_is_refused(name, message):
    with pytest.raises(ConfigError, match=f"full@{name}.*{message}"):
        parse_method(f"full@{name}")


def test_the_files_of_samplers_have_the_names_of_what_they_are(make_settings):
    for path in (ROOT / "config" / "sampler").glob("*[0-9].yaml"):
        section = {name: value for name, value in yaml.safe_load(path.read_text()).items() if name != "defaults"}
        assert parse_method(f"full@{path.stem}").sampler == section


def test_without_a_full_policy_to_follow_the_name_says_so(make_settings, altered):
    settings = make_settings("sampler=ancestral5", "sampler.steps=5", f"checkpoint={altered(50)}")
    experiment = load_experiment(settings)
    assert experiment.sampler_name == "ancestral5-uncoupled" and experiment.sampler_settings["coupled"] is False
    with pytest.raises(ConfigError, match="the policy's own sampler takes 50: use coupled=false"):
        load_experiment(settings.replace(sampler=settings.sampler.replace(coupled=True)))


def test_a_chunk_of_another_length_is_executed_and_labelled(make_settings):
    cfg = make_settings(
        "cache=full", "task.n_action_steps=4", "eval.n_test=1", "task.environment.max_steps=16", "output_dir=null"
    )
    experiment = load_experiment(cfg, n_test=1, n_train=0)
    observation = experiment.policy.random_observation(1, torch.Generator().manual_seed(0))
    assert experiment.policy.predict_action(observation)["action"].shape == (1, 4, 2)
    assert any("4 actions of a chunk" in note and "says 8" in note for note in experiment.notes)
    evaluation = run(
        make_settings("cache=full", "task.n_action_steps=4", "eval.n_test=1", "task.environment.max_steps=16")
    )
    assert evaluation.episodes[0].policy_calls == 4
    provenance = evaluation.results["provenance"]
    assert (provenance["n_action_steps"], provenance["n_latency_steps"]) == (4, 0) and provenance[
        "notes"
    ] == experiment.notes


def test_latency_takes_actions_from_the_chunk(make_settings):
    evaluation = run(
        make_settings(
            "cache=full",
            "task.n_action_steps=6",
            "task.n_latency_steps=2",
            "eval.n_test=1",
            "task.environment.max_steps=12",
        )
    )
    assert evaluation.episodes[0].policy_calls == 2 and evaluation.results["provenance"]["n_latency_steps"] == 2
