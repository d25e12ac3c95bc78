"""get_optimal_cache_update_steps.py: its folders, and that its schedules are those of bac eval."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from bac.schedule import Schedule
from bac_workbench.caching.schedules import schedule_for
from bac_workbench.released import eval_command
from bac_workbench.released.names import modules_of
from bac_workbench.released.options import settings_from
from bac_workbench.released.steps_command import main
from bac_workbench.setup.experiment import load_experiment
from tests.released.conftest import EVAL, PROFILE, write_original

ROOT = Path("assets", "pusht_lowdim")
MODULES = sorted(
    module
    for layer in (0, 1)
    for kind in ("sa", "ca", "ffn")
    for module in modules_of(f"decoder.layers.{layer}.{kind}")
)


def door(checkpoint, *arguments: str, root: Path = ROOT) -> None:
    main(["-c", str(checkpoint), "-o", str(root), "-d", "cpu", "--num_caches", "3,5", *arguments, *PROFILE])


def steps_of(metric: str, module: str, budget: int) -> dict:
    name = f"optimal_steps_{module}_{budget}_{metric}"
    return json.loads((ROOT / "optimal_steps" / metric / module / f"{name}.json").read_text())


def refusal(capsys, run) -> str:
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 1
    return capsys.readouterr().err


def test_one_profile_gives_every_metric_and_budget_in_the_released_layout(checkpoint, capsys):
    door(checkpoint)
    assert len(MODULES) == 7 and "decoder.layers.0.self_attn" in MODULES
    assert sorted(path.name for path in (ROOT / "optimal_steps").iterdir()) == ["cosine", "l1", "mse"]
    for metric in ("cosine", "l1", "mse"):
        assert sorted(path.name for path in (ROOT / "optimal_steps" / metric).iterdir()) == MODULES
        for budget in (3, 5):
            label = f"blockwise_acs_s{budget}" + ("" if metric == "cosine" else f"_{metric}")
            ours = Schedule.load(ROOT / "schedules" / f"{label}.json")
            for block, steps in ours.update_steps.items():
                for module in modules_of(block):
                    assert steps_of(metric, module, budget) == {"metric": metric, "steps": steps, "num_steps": budget}
    text = ROOT / "optimal_steps/cosine/decoder.layers.1.dropout3/optimal_steps_decoder.layers.1.dropout3_5_cosine.txt"
    numbers = [line for line in text.read_text().splitlines() if not line.startswith("#")]
    assert [int(step) for line in numbers for step in line.split()] == steps_of("cosine", text.parent.name, 5)["steps"]
    linked = ROOT / "original" / "optimal_steps" / "cosine"
    assert linked.samefile(ROOT / "optimal_steps" / "cosine")

    with np.load(ROOT / "original" / "activations.npz") as activations:
        assert sorted(activations.files) == MODULES
        assert activations["decoder.layers.0.dropout1"].shape == (10, 1, 16, 16)
        assert np.array_equal(activations["decoder.layers.0.dropout1"], activations["decoder.layers.0.self_attn"])
    with np.load(ROOT / "original" / "similarity_matrices.npz") as matrices:
        assert matrices["decoder.layers.1.dropout2|cosine"].shape == (10, 10)
        assert np.allclose(np.diagonal(matrices["decoder.layers.1.dropout2|cosine"]), 1)
    errors = json.loads((ROOT / "original" / "bu_block_selection" / "block_l1_errors.json").read_text())
    assert {"decoder.layers.0_sa_block", "decoder.layers.1_mha_block", "decoder.layers.1_ff_block"} < set(errors)
    assert "bac profile task=pusht_lowdim" in capsys.readouterr().out


def test_the_schedules_are_those_of_bac_eval(checkpoint):
    door(checkpoint)
    folder = ROOT / "optimal_steps" / "cosine"
    same_profile = [text for text in PROFILE if text.startswith("profile.")]
    flags = ["-c", str(checkpoint), "-o", "results/x", "-d", "cpu", "--cache_mode", "optimal", "--num_caches", "3"]
    flags += ["--optimal_steps_dir", str(folder), "--num_bu_blocks", "2", *EVAL, *same_profile]
    given = eval_command.flags().read(flags)
    experiment = load_experiment(settings_from("eval", eval_command.overrides_of(given, "optimal")))
    released = eval_command.stored_steps(given, experiment)
    ours = schedule_for(experiment)
    assert released.stored == ours and released.label == experiment.cache.label == "bac_s3_k2"
    assert ours.update_count > 3 * len(ours.blocks)  # the repair added some


def test_one_demonstration_is_profiled_where_its_index_is_named(checkpoint, capsys):
    main(["-c", str(checkpoint), "-o", str(ROOT), "-d", "cpu", "--num_caches", "3", "--demo_idx", "4", "threads=1"])
    stored = json.loads((ROOT / "original" / "profile.json").read_text())
    assert stored["observations"] == 1 and stored["noise_seeds"] == [0]
    assert stored["activations"] == {"episode_seed": 4, "noise_seed": 0}
    assert "rollouts of the full policy from seeds 4" in stored["source"]


def test_what_the_released_code_unpickles_is_written_where_it_is_asked_for(checkpoint):
    door(checkpoint)
    assert not list(ROOT.rglob("*.pkl"))
    door(checkpoint, "--pickle")
    steps = ROOT / "optimal_steps/l1/decoder.layers.0.dropout3/optimal_steps_decoder.layers.0.dropout3_3_l1.pkl"
    assert pickle.loads(steps.read_bytes()) == steps_of("l1", "decoder.layers.0.dropout3", 3)["steps"]
    matrices = pickle.loads((ROOT / "original" / "similarity_matrices.pkl").read_bytes())
    assert matrices["decoder.layers.0.dropout3"]["mse"].shape == (10, 10)
    activations = pickle.loads((ROOT / "original" / "activations.pkl").read_bytes())
    assert len(activations["decoder.layers.0.dropout3"]) == 10
    assert isinstance(activations["decoder.layers.0.dropout3"][0], torch.Tensor)


def test_the_folder_of_another_checkpoint_stays_unless_it_is_replaced(checkpoint, capsys):
    door(checkpoint)
    before = steps_of("cosine", MODULES[0], 3)
    other = write_original(Path("other.ckpt"), seed=1)
    message = refusal(capsys, lambda: door(other))
    assert "holds the schedules of another profile" in message and "--force_recompute" in message
    assert steps_of("cosine", MODULES[0], 3) == before
    door(other, "--force_recompute")
    info = json.loads((ROOT / "original" / "profile.json").read_text())
    assert (
        info["checkpoint_hash"]
        == load_experiment(
            settings_from("eval", ["task=pusht_lowdim", f"checkpoint={other}", "cache=full"])
        ).loaded.hash
    )


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--num_caches", "0"], "'0' is no number of updates"),
        (["--num_caches", "3,11"], "--num_caches 11 is not possible: use 1 to 10"),
        (["--metrics", "cosine,wasserstein"], "use one of cosine, l1, l2, mse"),
        (["--num_cache", "3"], "did you mean --num_caches?"),
        (["--demo_idx", "-1"], "is no episode"),
        (["--task", "can_p"], "did you mean can_ph?"),
        (["--device", "gpu"], "use auto, cpu, cuda or cuda:<index>"),
        (["task.environment.max_step=3"], "did you mean task.environment.max_steps?"),
    ],
)
def test_wrong_flags_are_errors_on_one_screen(checkpoint, capsys, arguments, says):
    flags = ["-c", str(checkpoint), "-o", str(ROOT), *PROFILE[:1]]
    message = refusal(
        capsys, lambda: main([*flags, *(["-d", "cpu"] if "--device" not in arguments else []), *arguments])
    )
    assert says in message and "Traceback" not in message and len(message.splitlines()) < 12
    assert not ROOT.exists()
