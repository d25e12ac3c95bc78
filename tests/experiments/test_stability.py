"""bac stability: what schedules owe to the observation and the noise that were profiled."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bac.denoiser import model_blocks
from bac.schedule import Schedule
from bac_workbench.settings import check
from bac_workbench.setup.experiment import load_experiment
from bac_workbench.stability.measure import Chains, measure_chains
from bac_workbench.stability.numbers import correlations, likeness, schedule_of
from bac_workbench.stability.run import study
from diffusion_policy.common.config import ConfigError
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import tiny_model, tiny_sampler

STEPS = 10
BLOCKS = model_blocks(tiny_model())


def chains(similarity, episodes=(1, 1, 2, 2)):
    """Of maps [N, S, K, K], the same for every block."""
    maps = np.repeat(similarity[:, :, None], len(BLOCKS), axis=2).astype(np.float32)
    l1 = np.stack([(1 - maps[:, :, index]) * (index + 1) for index in range(len(BLOCKS))], axis=2)
    return Chains(BLOCKS, maps, l1, np.array(episodes), tuple(range(similarity.shape[1])))


def map_of(rate):
    steps = np.arange(STEPS)
    warped = steps**rate
    return np.exp(-np.abs(warped[:, None] - warped) / warped.max())


def test_equal_chains_give_equal_schedules_and_correlations_of_one():
    same = chains(np.broadcast_to(map_of(2.0), (4, 3, STEPS, STEPS)))
    for values in correlations(same).values():
        assert values.shape[1] == len(BLOCKS) and len(values)
        np.testing.assert_allclose(values, 1.0, atol=1e-5)
    found = likeness(same, [2], [1], 3, 2)
    assert (found.displacement, found.regret, found.repaired) == (0.0, pytest.approx(0.0, abs=1e-6), 2)
    assert schedule_of(same, [0], [0], 3, 2) == schedule_of(same, range(4), range(3), 3, 2)


def test_what_the_noise_decides_is_found_between_noises_and_not_between_states():
    maps = np.stack([np.stack([map_of(rate) for rate in (0.4, 3.0)])] * 4)
    found = correlations(chains(maps))
    assert found["state"].min() > 0.999 and found["episode"].min() > 0.999
    assert found["noise"].max() < 0.9 and found["all"].max() < 0.9
    one = likeness(chains(maps), [0], [0], 4, 2)
    assert one.displacement > 0 and one.regret > 0


def test_the_mean_of_single_chains_is_the_profile():
    import torch
    from rich.progress import Progress

    from bac.profiling import profile_features

    loop = tiny_sampler(tiny_model(), "ddpm", 4)
    inputs = SamplerInputs(torch.zeros(2, 6, 2), observation=torch.randn(2, 2, 3))
    with Progress(disable=True) as bar:
        found = measure_chains(loop, inputs, np.array([1, 2]), [0, 3], bar)
    similarity, l1 = found.mean([0, 1], [0, 1])
    alone = [profile_features(loop, inputs[number : number + 1], [0, 3]) for number in (0, 1)]
    for metric, matrices in (("cosine", similarity), ("l1", l1)):
        for block in BLOCKS:
            expected = (alone[0][metric][block] + alone[1][metric][block]) / 2
            np.testing.assert_allclose(matrices[block], expected, atol=1e-5)


FEW = [
    "profile.n_episodes=2",
    "profile.n_observations=2",
    "profile.noise_seeds=[0]",
    "held_out=1",
    "draws=1",
    "budget=3",
]
SHORT = ["task.environment.max_steps=16", "rollouts.n_test=2", "rollouts.n_workers=0", "rollouts.n_envs=2"]


def test_the_study_writes_what_it_found_and_goes_on_with_its_episodes(make_cfg, tmp_path):
    pytest.importorskip("pymunk")

    def run(*overrides):
        changes = ["task=pusht_lowdim", *FEW, *SHORT, f"output_dir={tmp_path}/study", *overrides]
        cfg, said = make_cfg(*changes, script="stability"), []
        return study(load_experiment(check(cfg, "stability", changes)), said.append), said

    folder, said = run()
    found = json.loads((folder / "stability.json").read_text())
    assert (folder / "stability.png").stat().st_size > 10_000
    names = [row["name"] for row in found["schedules"]]
    assert names == ["all", "1_observation-0", "2_observations-0"]
    for name in names:
        assert Schedule.load(folder / "schedules" / f"{name}.json").steps == 8
        assert len((folder / "rollouts" / name / "episodes.jsonl").read_text().splitlines()) == 2
    assert found["schedules"][0]["displacement"] == 0 and found["schedules"][0]["regret"] == 0
    assert found["schedules"][0] | {"name": "x"} == found["schedules"][2] | {"name": "x"}  # the same chains
    assert set(found["scores"]["by_schedule"]["1_observation-0"]) == {"mean", "interval_95", "scores", "difference"}
    assert any("repaired blocks alike" in line for line in said)
    with pytest.raises(ConfigError, match="holds another study .*budget.*overwrite=true"):
        run("budget=4")


@pytest.mark.parametrize(
    "override, message",
    [
        ("profile.source=dataset", "a study looks at states of rollouts"),
        ("profile.noise_seeds=null", "a study says what it measures"),
        ("profile.n_observations=3", "use a multiple of profile.n_episodes=2"),
    ],
)
def test_what_a_study_cannot_do_is_refused(make_cfg, override, message):
    cfg = make_cfg(*FEW, override, script="stability")
    with pytest.raises(ConfigError, match=message):
        check(cfg, "stability", [])
