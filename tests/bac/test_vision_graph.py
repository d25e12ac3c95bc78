"""The vision encoder as a CUDA graph; on the CPU with a stand-in graph that runs the module again."""

import copy

import pytest
import torch

from bac import accelerate
from bac.native.errors import NativeError
from bac.runtime import vision_graph
from bac.runtime.cuda_graph import CudaGraphSampler
from bac.runtime.vision_graph import EncoderGraph
from tests.bac.test_image_policy import image_policy
from tests.bac.test_vision_encoder import CHANGES, encoder_of, error, features, observations, shared
from tests.bac.tiny_policies import seeded

CHANGED_PICTURE = "agentview_image"


@pytest.fixture
def accelerated(graphs_on_cpu, monkeypatch):
    """accelerate() of an image policy with runtime=compiled as on a GPU."""
    monkeypatch.setattr(
        "bac.acceleration.make_sampler",
        lambda base, schedule, runtime, precision, threads, tokens: CudaGraphSampler(base, schedule, precision, tokens),
    )

    def accelerated(policy):
        return accelerate(policy, runtime="compiled")

    return accelerated


def test_replays_equal_the_module(graphs_on_cpu):
    """Interleaved shapes, new images at every call, results that later calls leave alone."""
    graph = EncoderGraph(shared())
    calls = [observations(batch, steps, seed) for seed, (batch, steps) in enumerate([(2, 2), (3, 1), (2, 2), (3, 1)])]
    with torch.inference_mode():
        first = graph(calls[0])
    results = [first, *map(graph, calls[1:])]
    assert all(torch.equal(result, features(shared(), nobs)) for result, nobs in zip(results, calls))
    assert len(graph.captured) == 2 and graph.prepare_seconds > 0


def test_observations_that_the_encoder_does_not_take_are_left_alone(graphs_on_cpu):
    nobs = observations()
    graph = EncoderGraph(shared())
    expected = graph(nobs)
    assert torch.equal(graph({"other": torch.zeros(1), **nobs}), expected) and len(graph.captured) == 1


def test_an_accelerated_policy_encodes_by_a_graph_and_leaving_restores_it(accelerated):
    policy = image_policy()
    seen = [policy.random_observation(1, torch.Generator().manual_seed(seed)) for seed in range(2)]
    plain = [policy.predict_action(obs, seeded(0))["action"] for obs in seen]
    with accelerated(policy) as fast:
        fast.warm_up(1)
        for obs, action in zip(seen, plain):
            assert error(fast.predict_action(obs, seeded(0))["action"], action) < 1e-5
        twin = copy.deepcopy(policy)
        assert twin.acting_encoder is not policy.acting_encoder
        assert error(twin.predict_action(seen[0], seeded(0))["action"], plain[0]) < 1e-5
    assert policy.acting_encoder is None
    report = fast.report()
    assert (report.encoder, report.frames, report.reused_frames) == ("CUDA graph of PyTorch's", 4, 0)
    assert report.encoder_ms > 0 and "vision encoder: CUDA graph of PyTorch's, " in str(report)


def test_changed_weights_and_training_mode_are_refused(graphs_on_cpu):
    module, nobs = encoder_of(group_norm=False), observations()
    graph = EncoderGraph(module)
    graph(nobs)
    module.train()
    with pytest.raises(RuntimeError, match=r"training mode: call policy.eval\(\) first"):
        graph(nobs)
    module.eval()
    with torch.no_grad():
        next(module.parameters()).add_(0.1)
    with pytest.raises(RuntimeError, match=r"weights changed .* call accelerate\(\) again"):
        graph(nobs)


@pytest.mark.parametrize(("change", "reason"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_module_that_may_do_something_else_at_every_call_is_not_captured(accelerated, change, reason):
    """A convolution of another form is known to PyTorch."""
    policy = image_policy()
    policy.obs_encoder.obs_nets["front"] = policy.obs_encoder.obs_nets[CHANGED_PICTURE]  # a name for it
    change(policy.obs_encoder)
    report = accelerated(policy).report()
    if reason == "another form":
        assert report.encoder == "CUDA graph of PyTorch's"
    else:
        assert report.encoder.startswith("PyTorch, as it") and reason in report.encoder


class Stale:
    """A graph that does not read what is in its buffers by then."""

    def __init__(self, body, device):
        self.out = body()

    def replay(self):
        pass


def test_a_graph_that_gives_other_features_is_noticed(graphs_on_cpu, monkeypatch):
    monkeypatch.setattr(vision_graph, "CapturedWork", Stale)
    graph = EncoderGraph(shared())
    for _ in range(2):  # it is not used afterwards
        with pytest.raises(NativeError, match="gives other features than PyTorch here.*use runtime=planned"):
            graph(observations())


@pytest.mark.gpu
def test_gpu_features_and_chunks():
    """Batches in turn; the features are bounded by how PyTorch rounds convolutions (TF32)."""
    policy = image_policy().cuda()
    with accelerate(policy, runtime="compiled") as fast:
        for batch, seed in [(1, 0), (3, 1), (1, 2), (3, 3)]:
            seen = policy.random_observation(batch, torch.Generator().manual_seed(seed))
            obs = {name: value.cuda() for name, value in seen.items()}
            acting, policy.acting_encoder = policy.acting_encoder, None
            expected = policy.encode_observation(obs)
            policy.acting_encoder = acting
            assert error(policy.encode_observation(obs), expected) < 1e-3
            assert torch.isfinite(fast.predict_action(obs, seeded(0)[0])["action"]).all()
    report = fast.report()
    assert report.encoder == "CUDA graph of PyTorch's" and report.encoder_ms > 0 and report.reused_frames == 0
