"""Original checkpoints of the robomimic image tasks, from the file to rollouts in simulation, as in scripts/eval.py.

The policies have the original's names, config and vision encoder, but random weights and a small Transformer.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from bac.acceleration import accelerate
from bac.native.build import CompilerMissing, find_compiler
from bac.schedule import Schedule
from bac_workbench.evaluation.evaluate import evaluate
from bac_workbench.evaluation.folder import open_output_dir
from bac_workbench.settings import check
from bac_workbench.setup.checkpoints import DOMAIN_SHIFT
from bac_workbench.setup.experiment import Experiment, load_experiment
from diffusion_policy.common.config import ConfigError, register_resolvers, to_plain
from diffusion_policy.common.policy_files import build_policy
from diffusion_policy.env.robomimic.definition import TASKS
from diffusion_policy.model.common.normalizer import FieldNormalizer, LinearNormalizer
from tests.conftest import ROOT
from tests.original_checkpoints import image_config, image_payload, saved

CHECKPOINT = "checkpoint/{}_ph/diffusion_policy_transformer/train_0/checkpoints/latest.ckpt"
GRIPPER_DOWN = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # as a 6D rotation
pytestmark = pytest.mark.usefixtures("quick_pictures")
AGREE = 1e-5  # of the action range


def original(name: str, shape_meta: dict | None = None, **changes) -> dict:
    """Payload of a checkpoint for the task `name`, whose actions are poses near its table."""
    task = TASKS[name]
    obs = {
        key: {"shape": list(shape), "type": "rgb"} if len(shape) == 3 else {"shape": list(shape)}
        for key, shape in task.image_shapes.items()
    }
    meta = shape_meta or {"obs": obs, "action": {"shape": [task.action_dim(abs_action=True)]}}
    crop = [216, 216] if task.image_size == 240 else [76, 76]
    cfg = image_config(f"{name}_image_abs", meta, crop, **{"n_emb": 64, "n_head": 4, **changes})
    torch.manual_seed(0)
    policy = build_policy({"policy": to_plain(OmegaConf.create(cfg))["policy"]}).requires_grad_(False)
    for parameter in policy.model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    centre = torch.tensor([0.0, 0.0, 1.0, *GRIPPER_DOWN, 0.0] * task.n_arms)
    reach = torch.tensor([0.1, 0.1, 0.1, *[0.1] * 6, 1.0] * task.n_arms)
    fields = {"action": FieldNormalizer.fit(torch.stack([centre - reach, centre + reach]))}
    for key, shape in policy.obs_shapes.items():
        fields[key] = FieldNormalizer.image() if len(shape) == 3 else FieldNormalizer.identity(*shape)
    policy.set_normalizer(LinearNormalizer(fields))
    return image_payload(policy, cfg)


def eval_config(name: str, *overrides: str) -> DictConfig:
    register_resolvers()
    usual = [
        f"task={name}_ph",
        "device=cpu",
        "threads=1",
        "profile.n_episodes=1",
        "profile.n_observations=2",
        "profile.noise_seeds=[0]",
        "eval.n_videos=0",
        "benchmark.n_chunks=1",
        "benchmark.warmup=0",
    ]
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        return compose("eval", [*usual, *overrides])


def run(cfg: DictConfig) -> tuple[Experiment, dict, list[str]]:
    """What scripts/eval.py does; also returns what it says."""
    said: list[str] = []
    settings = check(cfg, "eval", [])
    experiment = load_experiment(settings, n_test=settings.eval.n_test, n_train=settings.eval.n_train)
    output_dir = open_output_dir(experiment)
    evaluation = evaluate(experiment, output_dir, said.append)
    assert json.loads((output_dir / "eval_results.json").read_text()) == evaluation.results
    return experiment, evaluation.results, said


def check_results(results: dict, n_episodes: int, budget: int, runtime: str) -> None:
    assert results["method"] == f"bac_s{budget}" and results["n_episodes"] == n_episodes == len(results["episodes"])
    assert 0 <= results["mean_score"] <= 1
    assert budget * 6 <= results["block_updates"]["per_chunk"] < results["block_updates"]["full"]
    provenance = results["provenance"]
    assert (provenance["checkpoint_format"], provenance["train_steps"], provenance["runtime"]) == (
        "original",
        77,
        runtime,
    )
    assert provenance["notes"] == [DOMAIN_SHIFT]


def actions(experiment: Experiment, schedule: Schedule | None, runtime: str, obs: dict) -> torch.Tensor:
    """Normalised action chunks for `obs`, always from the same noise."""
    with experiment.attached() as policy, accelerate(policy, schedule, runtime) as fast:
        chunk = fast.predict_action(obs, torch.Generator().manual_seed(0))["action"]
    return experiment.policy.normalizer["action"].normalize(chunk)


def runtimes() -> list[str]:
    try:
        find_compiler()
    except CompilerMissing:
        return ["planned"]
    return ["planned", "compiled"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty place to run commands in."""
    pytest.importorskip("robosuite")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(place: Path, name: str, payload: dict, **how) -> Path:
    path = place / CHECKPOINT.format(name)
    path.parent.mkdir(parents=True)
    return saved(path, payload, **how)


def test_lift_briefly(place):
    payload = original("lift", steps=4)
    del payload["state_dicts"]["model"]  # the raw weights; half of the time to write it
    put(place, "lift", payload)
    cfg = eval_config(
        "lift",
        "cache=bac",
        "cache.budget=2",
        "sampler.steps=4",
        "eval.n_test=1",
        "eval.n_envs=1",
        "eval.n_workers=0",
        "+task.environment.max_steps=8",
        "benchmark.n_chunks=0",
    )
    _, results, _ = run(cfg)
    check_results(results, 1, 2, "planned")
    assert results["rollout"]["env_steps"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_task_from_the_file_to_a_rollout(place, name):
    path = put(place, name, original(name, steps=100), pickle_module=pytest.importorskip("dill"))
    usual = ["cache=bac", "cache.budget=10", "eval.n_test=2", "eval.n_envs=2", "+task.environment.max_steps=16"]
    first, *further = runtimes()
    experiment, results, said = run(eval_config(name, *usual, f"runtime={first}", "eval.n_workers=1"))
    assert experiment.loaded.source.absolute() == path and experiment.loaded.weights == "ema"
    assert any("profiling now" in line for line in said)
    check_results(results, 2, 10, first)
    assert results["rollout"]["env_steps"] == 32

    schedule = Schedule.load(place / "assets" / f"{name}_ph" / "schedules" / "bac_s10.json")
    assert schedule.provenance.checkpoint_hash == experiment.loaded.hash
    obs = experiment.policy.random_observation(1, torch.Generator().manual_seed(0))
    expected = actions(experiment, schedule, "reference", obs)
    assert expected.shape == (1, 8, TASKS[name].action_dim(abs_action=True))
    assert (actions(experiment, None, "reference", obs) - expected).abs().max() > 1e-3
    for runtime in (first, *further):
        assert (actions(experiment, schedule, runtime, obs) - expected).abs().max() < AGREE

    for runtime in further:
        own = [f"runtime={runtime}", f"output_dir={place}/{runtime}", "eval.n_test=1", "eval.n_workers=0"]
        _, again, said = run(eval_config(name, *usual, *own))
        check_results(again, 1, 10, runtime)
        assert not any("profiling now" in line for line in said)
        assert again["provenance"]["schedule_digest"] == results["provenance"]["schedule_digest"]


def test_images_of_another_size_are_refused_before_anything_runs(place):
    shapes = {"agentview_image": [3, 96, 96], "robot0_eye_in_hand_image": [3, 84, 84]}
    obs = {name: {"shape": shape, "type": "rgb"} for name, shape in shapes.items()}
    obs |= {"robot0_eef_pos": {"shape": [3]}, "robot0_eef_quat": {"shape": [4]}, "robot0_gripper_qpos": {"shape": [2]}}
    put(place, "lift", original("lift", {"obs": obs, "action": {"shape": [10]}}, n_layer=1))
    with pytest.raises(ConfigError) as caught:
        load_experiment(check(eval_config("lift", "cache=full"), "eval", []))
    assert str(caught.value).endswith(
        "not a policy for task lift_ph: it needs agentview_image [3, 96, 96], the environment shows [3, 84, 84]"
    )
