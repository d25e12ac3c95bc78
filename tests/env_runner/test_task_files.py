"""The files of config/task/: each is a task of its own name, with the sections that a task is made of."""

import pytest
import yaml
from hydra import compose, initialize_config_dir

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.env_runner.task import task_from_config
from tests.conftest import ROOT

FILES = sorted((ROOT / "config" / "task").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_task_has_the_name_of_its_file(path):
    assert yaml.safe_load(path.read_text())["name"] == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_describes_an_environment_its_chunking_and_its_seeds(path):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "config"), version_base="1.3"):
        section = compose("eval", [f"task={path.stem}"]).task
    task = task_from_config(section, n_test=2)
    assert task.name == path.stem and [episode.seed for episode in task.episodes()] == [100_000, 100_001]
    chunking = task.chunking
    assert (chunking.n_obs_steps, chunking.n_action_steps, chunking.n_latency_steps) == (
        section.n_obs_steps,
        section.n_action_steps,
        section.n_latency_steps,
    )
    assert task.environment.requirements.packages
