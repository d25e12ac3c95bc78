"""Pictures of schedules, similarity matrices and block errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bac.acs import blockwise_acs
from bac.blocks import decoder_blocks, encoder_blocks
from bac.bua import bubbling_union, error_scores
from bac.figures import plot_errors, plot_schedule, plot_similarity
from bac.schedule import Schedule, ScheduleError
from bac.similarity import pairwise
from bac.uniform import uniform

imread = pytest.importorskip("matplotlib.image").imread


def l1_matrices(blocks, n_steps=12):
    rng = np.random.default_rng(0)
    return {name: pairwise(rng.standard_normal((n_steps, 8)).cumsum(0), "l1") for name in blocks}


def assert_picture(path):
    """The file is a picture that is neither blank nor tiny, and nothing partial lies beside it."""
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 300 and pixels[..., :3].std() > 0.02
    assert [name for name in os.listdir(path.parent) if name.startswith(".")] == []


@pytest.fixture(scope="module")
def repaired():
    matrices = l1_matrices(decoder_blocks(2))
    base = blockwise_acs(matrices, 3, "l1")
    return base, bubbling_union(base, error_scores(matrices), 2)


def test_what_a_killed_drawing_left_is_removed_by_the_next(tmp_path, repaired):
    code = (
        "import os, signal, sys; from diffusion_policy.common.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "schedule.png")], cwd=Path(__file__).parents[2])
    assert len(os.listdir(tmp_path)) == 1
    plot_schedule(repaired[1], tmp_path / "schedule.png")
    assert_picture(tmp_path / "schedule.png")


def test_schedule_picture(tmp_path, repaired):
    base, schedule = repaired
    plot_schedule(schedule, tmp_path / "new" / "schedule.png", base)
    assert_picture(tmp_path / "new" / "schedule.png")
    plot_schedule(uniform(encoder_blocks(1), 300, 7), tmp_path / "long.png")
    assert_picture(tmp_path / "long.png")
    with pytest.raises(ScheduleError, match="base must have the blocks and steps"):
        plot_schedule(schedule, tmp_path / "other.png", Schedule.full(schedule.blocks, 5))


def test_similarity_picture(tmp_path, repaired):
    plot_similarity(l1_matrices(decoder_blocks(2)), tmp_path / "l1.png", "l1", repaired[1])
    assert_picture(tmp_path / "l1.png")
    incomplete = l1_matrices(["decoder.layers.0.sa", "decoder.layers.3.sa", "decoder.layers.3.ffn"], n_steps=1)
    plot_similarity(incomplete, tmp_path / "gaps.png", "l1")
    assert_picture(tmp_path / "gaps.png")


def test_errors_picture(tmp_path):
    scores = error_scores(l1_matrices(decoder_blocks(2)))
    plot_errors(scores, tmp_path / "errors.png", ["decoder.layers.1.sa"])
    assert_picture(tmp_path / "errors.png")
    with pytest.raises(ValueError, match="decoder.layers.9.sa"):
        plot_errors(scores, tmp_path / "errors.png", ["decoder.layers.9.sa"])


@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_vector_formats(tmp_path, ending):
    path = tmp_path / f"errors.{ending}"
    plot_errors({"decoder.layers.0.sa": 1.0}, path)
    assert path.read_bytes()[:5] in (b"%PDF-", b"<?xml")


@pytest.mark.parametrize("name", ["errors.docx", "errors"])
def test_unknown_formats_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="ends in .png"):
        plot_errors({"decoder.layers.0.sa": 1.0}, tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_matplotlib_is_imported_lazily_and_its_global_state_left_alone(tmp_path):
    code = (
        "import sys\n"
        "from bac.figures import plot_errors\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_errors({{'decoder.layers.0.sa': 1.0}}, {str(tmp_path / 'e.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    repository = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=repository, check=True)
