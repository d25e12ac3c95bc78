"""Profiling: what is accumulated batch by batch equals comparing the features directly."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

import bac as bac_package
from bac import accelerate
from bac.bua import bac
from bac.denoiser import model_blocks
from bac.profiling import FeatureSimilarity, Profile, ProfileError, ProfileInfo, profile_features
from bac.runtime.reference import ReferenceSampler
from bac.schedule import Schedule
from bac.similarity import METRICS, pairwise
from diffusion_policy.policy.sampler_inputs import SamplerInputs
from tests.bac.tiny_policies import observation, random_schedule, seeded, tiny_model, tiny_policy, tiny_sampler

SEEDS = (3, 4)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def inputs():
    """Five observations [5, 2, 3]."""
    observation = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    return SamplerInputs(torch.zeros(5, 6, 2), observation=observation)


def profile(base, inputs, **options):
    return profile_features(base, inputs, SEEDS, **options)


def largest_difference(a, b):
    return max(np.abs(a[metric][block] - b[metric][block]).max() for metric in a for block in a[metric])


# ---- the numbers -----------------------------------------------------------------------------------------------------


def test_accumulated_sums_equal_direct_comparison():
    steps, blocks = 7, ("decoder.layers.0.sa", "decoder.layers.0.ca")
    generator = torch.Generator().manual_seed(0)
    similarity, samples = FeatureSimilarity(blocks, steps), {block: [] for block in blocks}
    for batch in (3, 1, 2):
        features = {block: torch.randn(steps, batch, 4, 5, generator=generator) for block in blocks}
        for k in range(steps):
            for block in blocks:
                similarity.observe(k, block, features[block][k])
        similarity.finish_batch()
        for block in blocks:
            samples[block] += [features[block][:, i].numpy() for i in range(batch)]
    matrices = similarity.matrices()
    assert similarity.samples == 6 and matrices.keys() == METRICS.keys()
    for metric in METRICS:
        for block in blocks:
            expected = np.mean([pairwise(sample, metric) for sample in samples[block]], axis=0)
            np.testing.assert_allclose(matrices[metric][block], expected, atol=1e-6)


def features_of_run(base, schedule, inputs, generators):
    """Every block's output at every step."""
    features = {block: [] for block in schedule.blocks}
    ReferenceSampler(base, schedule, lambda k, block, output: features[block].append(output.numpy()))(
        inputs, generators
    )
    return features


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_profile_equals_features_of_single_runs(model, inputs, sampler):
    """Every (observation, seed) pair is one run of the full policy with its own noise."""
    base = tiny_sampler(model, sampler, steps=5)
    blocks = model_blocks(model)
    schedule = Schedule.full(blocks, 5)
    runs = {block: [] for block in blocks}
    for seed in SEEDS:
        for i in range(len(inputs)):
            features = features_of_run(base, schedule, inputs[i : i + 1], seeded(seed * 1_000_003 + i))
            for block in blocks:
                runs[block].append(np.stack(features[block]))
    matrices = profile(base, inputs, batch_size=2)
    for metric in METRICS:
        for block in blocks:
            expected = np.mean([pairwise(run, metric) for run in runs[block]], axis=0)
            np.testing.assert_allclose(matrices[metric][block], expected, atol=1e-5)
            assert matrices[metric][block].shape == (5, 5) and matrices[metric][block].dtype == np.float64


def test_batch_size_does_not_matter(model, inputs):
    base = tiny_sampler(model)
    results = [profile(base, inputs, batch_size=size) for size in (1, 3, 5)]
    assert max(largest_difference(results[0], other) for other in results[1:]) < 1e-5


def test_inpainting():
    model = tiny_model(cond_dim=0, time_as_cond=False, n_layer=1)
    known = torch.rand(2, 6, 2)
    matrices = profile(tiny_sampler(model, steps=4), SamplerInputs(known, known > 0.7))
    assert set(matrices["cosine"]) == {"encoder.layers.0.sa", "encoder.layers.0.ffn"}
    assert not np.allclose(matrices["cosine"]["encoder.layers.0.sa"], 1)


def test_features_that_are_not_finite_are_refused(inputs):
    model = tiny_model()
    with torch.no_grad():
        model.decoder.layers[1].linear1.weight[0] = float("inf")
    with pytest.raises(ValueError, match=r"features of decoder.layers.\d.\w+ contain NaN or infinite values"):
        profile(tiny_sampler(model), inputs)


# ---- memory and progress ---------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_observations(model):
    """After every batch as many tensors live, holding as many numbers, as after the first."""
    live = []

    def progress(done, total):
        tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        live.append((len(tensors), sum(t.numel() for t in tensors)))

    inputs = SamplerInputs(torch.zeros(12, 6, 2), observation=torch.randn(12, 2, 3))
    gc.collect()
    profile(tiny_sampler(model, steps=5), inputs, batch_size=2, progress=progress)
    assert len(live) == 12 and max(live[1:]) <= live[0]


def test_progress_counts_pairs(model, inputs):
    pairs = []
    profile(tiny_sampler(model, steps=2), inputs, batch_size=2, progress=lambda *counts: pairs.append(counts))
    assert pairs == [(2, 10), (4, 10), (5, 10), (7, 10), (9, 10), (10, 10)]


# ---- storing and using -----------------------------------------------------------------------------------------------


def test_round_trip(model, inputs, tmp_path):
    info = ProfileInfo("abc", "ema", "ddpm100", 10, 5, SEEDS, "test")
    stored = Profile(info, profile(tiny_sampler(model), inputs))
    folder = tmp_path / "task" / "profile"
    assert Profile.read_info(folder) is None
    with pytest.raises(FileNotFoundError, match="no profile in"):
        Profile.load(folder)
    stored.save(folder)
    assert Profile.read_info(folder) == info
    loaded = Profile.load(folder)
    assert loaded.info == info and isinstance(loaded.info.noise_seeds, tuple)
    assert {m: tuple(blocks) for m, blocks in loaded.matrices.items()} == {
        m: tuple(b) for m, b in stored.matrices.items()
    }
    assert largest_difference(loaded.matrices, stored.matrices) < 1e-6
    assert all(matrix.dtype == np.float64 for blocks in loaded.matrices.values() for matrix in blocks.values())
    assert sorted(path.name for path in folder.iterdir()) == ["profile.json", "profile.npz"]
    newer = replace(stored, info=replace(info, checkpoint_hash="def"))
    newer.save(folder)
    assert Profile.load(folder).info.checkpoint_hash == "def"


def test_profile_to_accelerated_policy():
    """The whole way: profile, ACS, BUA, schedule, faster policy; closer to the full policy than a random schedule."""
    policy = tiny_policy(steps=30)
    matrices = profile_features(policy.sampler, policy.sampler_inputs(observation(4)), SEEDS)
    schedule = bac(matrices["cosine"], matrices["l1"], budget=8, top_k=2)
    assert schedule.blocks == model_blocks(policy.model) and schedule.steps == 30
    assert schedule.update_count < 30 * len(schedule.blocks)

    def actions(candidate):
        with accelerate(policy, candidate, "planned") as fast:
            return fast.predict_action(observation(8, seed=50), seeded(*range(8)))["action_pred"]

    full = actions(None)
    density = schedule.update_count / schedule.updates.size
    others = [actions(random_schedule(policy.model, 30, density, seed)) for seed in range(5)]

    def distance(predicted):
        return (predicted - full).square().mean().item()

    assert 0 < distance(actions(schedule)) < np.median([distance(predicted) for predicted in others])


# ---- of a policy -----------------------------------------------------------------------------------------------------


def test_a_policy_and_recorded_arrays_make_a_profile_and_a_schedule_for_it():
    policy, seen = tiny_policy(), observation(batch=4)
    found = bac_package.profile(policy, {name: value.numpy() for name, value in seen.items()}, SEEDS, source="my robot")
    matrices = profile_features(policy.sampler, policy.sampler_inputs(seen), SEEDS)
    assert largest_difference(found.matrices, matrices) == 0
    assert (found.info.observations, found.info.noise_seeds, found.info.source) == (4, SEEDS, "my robot")
    schedule = bac(
        found.matrices["cosine"], found.matrices["l1"], budget=2, top_k=1, provenance=found.info.provenance()
    )
    with accelerate(policy, schedule) as fast:  # it is for these weights and this sampler
        assert torch.isfinite(fast.predict_action(seen)["action"]).all()
        with pytest.raises(ProfileError, match="the policy is accelerated"):
            bac_package.profile(policy, seen)


def test_one_array_stands_for_the_only_observation():
    policy, seen = tiny_policy(), observation(batch=2)
    alone = bac_package.profile(policy, seen["obs"], [0])
    assert largest_difference(alone.matrices, bac_package.profile(policy, seen, [0]).matrices) == 0
    with pytest.raises(ProfileError, match="at least one noise seed"):
        bac_package.profile(policy, seen, [])
    with pytest.raises(ValueError, match="obs_dict needs the key 'obs'"):
        bac_package.profile(policy, {"other": seen["obs"]})
