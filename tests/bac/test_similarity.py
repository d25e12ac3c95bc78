"""Similarity of features: the definitions, streamed sums, and the authors' matrices."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bac.blocks import decoder_blocks
from bac.similarity import METRICS, from_sums, get_metric, pairwise

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tiny_lowdim"


def by_definition(a: np.ndarray, b: np.ndarray, metric: str) -> float:
    a, b = a.ravel(), b.ravel()
    if metric == "cosine":
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return {
        "l1": np.mean(np.abs(a - b)),
        "l2": np.linalg.norm(a - b) / math.sqrt(a.size),
        "mse": np.mean((a - b) ** 2),
    }[metric]


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(st.sampled_from(sorted(METRICS)), st.integers(1, 6), st.integers(0, 10**6), st.floats(1e-4, 1e4))
def test_pairwise_matches_the_definitions(metric, n_steps, seed, scale):
    features = scale * np.random.default_rng(seed).standard_normal((n_steps, 2, 3, 4))  # [K, B, T, D]
    matrix = pairwise(features, metric)
    expected = [[by_definition(a, b, metric) for b in features] for a in features]
    tolerance = {"cosine": 1e-12, "l1": 1e-12 * scale, "l2": 1e-6 * scale, "mse": 1e-12 * scale**2}[metric]
    np.testing.assert_allclose(matrix, expected, rtol=1e-12, atol=tolerance)
    assert matrix.dtype == np.float64 and matrix.shape == (n_steps, n_steps)
    assert np.array_equal(matrix, matrix.T)
    np.testing.assert_allclose(np.diagonal(matrix), METRICS[metric].identical, atol=1e-12)


def test_registry_knows_what_to_maximise():
    assert {name for name, metric in METRICS.items() if metric.maximise} == {"cosine"}
    assert set(METRICS) == {"cosine", "l1", "l2", "mse"}
    assert all(get_metric(name).name == name for name in METRICS)
    with pytest.raises(ValueError, match="unknown metric 'dot': choose one of cosine, l1, l2, mse"):
        get_metric("dot")


def test_cosine_of_zero_features():
    matrix = pairwise(np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]), "cosine")
    assert matrix.tolist() == [[1, 0, 1], [0, pytest.approx(1), 0], [1, 0, 1]]


def test_cosine_ignores_scale_but_distances_do_not():
    features = np.array([[1.0, 2.0], [2.0, 4.0]])
    assert pairwise(features, "cosine")[0, 1] == pytest.approx(1)
    assert [pairwise(features, metric)[0, 1] for metric in ("l1", "mse")] == [1.5, 2.5]


def test_streamed_sums_equal_one_pass():
    features = np.random.default_rng(0).standard_normal((5, 7, 3, 4))  # [K, N, T, D], N observations
    for metric in METRICS:
        gram, abs_sum = np.zeros((5, 5)), np.zeros((5, 5))
        for one in np.moveaxis(features, 1, 0):
            flat = one.reshape(5, -1)
            gram += flat @ flat.T
            abs_sum += np.abs(flat[:, None] - flat[None]).sum(-1)
        streamed = from_sums(metric, 7 * 3 * 4, gram=gram, abs_sum=abs_sum)
        np.testing.assert_allclose(streamed, pairwise(features, metric), atol=1e-7 if metric == "l2" else 1e-12)


def test_sums_may_have_leading_axes():
    features = np.random.default_rng(0).standard_normal((7, 5, 12))  # [N, K, features]
    gram = features @ features.transpose(0, 2, 1)
    abs_sum = np.abs(features[:, :, None] - features[:, None]).sum(-1)
    for metric in METRICS:
        stacked = from_sums(metric, 12, gram=gram, abs_sum=abs_sum)
        np.testing.assert_allclose(stacked, [pairwise(f, metric) for f in features], atol=1e-7)
        if metric in ("l1", "mse"):  # the mean over observations is the matrix over all of them
            np.testing.assert_allclose(stacked.mean(0), pairwise(features.transpose(1, 0, 2), metric), atol=1e-12)


def test_float32_features_near_each_other_keep_their_distance():
    base = np.full((1, 1000), 100.0, np.float32)
    features = np.concatenate([base, base + np.float32(1e-3)])
    step = float(features[1, 0]) - 100.0
    assert pairwise(features, "mse")[0, 1] == pytest.approx(step**2, rel=1e-3)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        pairwise(np.array([[1.0, np.nan]]), "l1")
    with pytest.raises(ValueError, match=r"\[steps, \.\.\.\]"):
        pairwise(np.ones(4), "l1")
    with pytest.raises(ValueError, match=r"\[steps, \.\.\.\]"):
        pairwise(np.ones((4, 0)), "l1")
    with pytest.raises(ValueError, match="unknown metric"):
        pairwise(np.ones((4, 2)), "dot")
    with pytest.raises(ValueError, match="'mse' needs gram"):
        from_sums("mse", 3, abs_sum=np.ones((2, 2)))
    with pytest.raises(ValueError, match="'l1' needs abs_sum"):
        from_sums("l1", 3, gram=np.ones((2, 2)))
    with pytest.raises(ValueError, match="must be"):
        from_sums("mse", 3, gram=np.ones((2, 3)))


# ---- the authors' matrices -------------------------------------------------------------------------------------------


def record_features():
    """Block outputs of the golden model's full DDPM run, [K, B, T, D] per block, and its last trajectory.

    Written out with torch's layers rather than this project's model, so that the metrics are tested on their own.
    """
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    load_file = pytest.importorskip("safetensors.torch").load_file
    from torch.nn import functional as F

    case = json.loads((GOLDEN / "case.json").read_text())
    weights = load_file(GOLDEN / "model.safetensors")
    width, heads, n_layer = (case["model"][key] for key in ("n_emb", "n_head", "n_layer"))
    layer = torch.nn.TransformerDecoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    decoder = torch.nn.TransformerDecoder(layer, n_layer).eval()
    decoder.load_state_dict({k[len("decoder.") :]: v for k, v in weights.items() if k.startswith("decoder.")})
    observation = torch.from_numpy(np.load(GOLDEN / "arrays.npz")["cond"])
    features = {name: [] for name in decoder_blocks(n_layer)}

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def denoise(x, t):
        half = width // 2
        angles = t * torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        time = torch.cat([angles.sin(), angles.cos()]).expand(len(x), 1, -1)
        tokens = torch.cat([time, linear(observation, "cond_obs_emb")], 1) + weights["cond_pos_emb"]
        memory = linear(F.mish(linear(tokens, "encoder.0")), "encoder.2")
        h = linear(x, "input_emb") + weights["pos_emb"]
        for i, block in enumerate(decoder.layers):
            q = block.norm1(h)
            out = block.self_attn(q, q, q, attn_mask=weights["mask"], need_weights=False)[0]
            features[f"decoder.layers.{i}.sa"].append(out.numpy())
            h = h + out
            q = block.norm2(h)
            out = block.multihead_attn(q, memory, memory, attn_mask=weights["memory_mask"], need_weights=False)[0]
            features[f"decoder.layers.{i}.ca"].append(out.numpy())
            h = h + out
            out = block.linear2(F.gelu(block.linear1(block.norm3(h))))
            features[f"decoder.layers.{i}.ffn"].append(out.numpy())
            h = h + out
        return linear(F.layer_norm(h, (width,), weights["ln_f.weight"], weights["ln_f.bias"]), "head")

    scheduler = diffusers.DDPMScheduler(**case["scheduler"])
    scheduler.set_timesteps(case["denoising_steps"])
    generator = torch.Generator().manual_seed(case["noise_seed"])
    shape = (case["batch"], case["model"]["horizon"], case["model"]["input_dim"])
    x = torch.randn(shape, generator=generator)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(denoise(x, t), t, x, generator=generator).prev_sample
    return {name: np.stack(steps) for name, steps in features.items()}, x.numpy()


def test_golden_matrices():
    features, trajectory = record_features()
    np.testing.assert_allclose(trajectory, np.load(GOLDEN / "arrays.npz")["full"], atol=1e-5)
    with np.load(GOLDEN / "similarity.npz") as stored:
        for key in stored.files:
            name, metric = key.split("|")
            # The authors' matrices flatten batch and tokens into one vector. Float32 features limit the agreement.
            scale = max(abs(stored[key].max()), abs(stored[key].min()))
            np.testing.assert_allclose(pairwise(features[name], metric), stored[key], rtol=0, atol=2e-6 * scale)
