"""Training states that an earlier version wrote, with other names, go on as if they had been written today."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, safe_open, save_file

from diffusion_policy.workspace.earlier_names import present_objective, present_tensors
from tests.workspace.small_training import logged_steps


def rewritten(path, rename, objective):
    """The state in `path` as an earlier version wrote it."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["state"])
    header["settings"]["objective"] = objective
    tensors = {rename(name): value for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"state": json.dumps(header)})


def same_state(path, other):
    a, b = load_file(path), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_denoising_without_an_objective_goes_on(train, tmp_path):
    part = train("training.max_steps=4")
    part.run()
    rewritten(part.state_file, lambda name: name.replace(".policy.", ".", 1), None)
    train("training.max_steps=8", "training.lr_schedule=trapezoid").run()
    whole = train("training.max_steps=4", f"output_dir={tmp_path / 'whole'}")
    whole.run()
    train("training.max_steps=8", "training.lr_schedule=trapezoid", f"output_dir={tmp_path / 'whole'}").run()
    assert logged_steps(part.output_dir) == list(range(1, 9))
    assert same_state(part.state_file, whole.state_file)


def test_a_condition_training_with_the_names_of_before_goes_on(train_condition_task, tmp_path):
    settings = [
        "objective=condition",
        "objective.auxiliary_targets={obs: 3}",
        "objective.min_scale=0.03",
        "task.policy.model.n_layer=1",
        "training.batch_size=16",
        "training.save_every=2",
    ]
    for name in ("earlier", "today"):
        part = train_condition_task(name, *settings, "training.max_steps=2")
        part.run()
        if name == "earlier":
            rewritten(
                part.state_file,
                lambda name: name.replace(".auxiliary_", ".further_"),
                {
                    "_target_": "diffusion_policy.workspace.condition_learner.ConditionLearner",
                    "embedding_std": 2.0,
                    "modes": 4,
                    "finest": 0.03,
                    "random_crops": True,
                    "scale_steps": 300,
                    "also": {"obs": 3},
                },
            )
        train_condition_task(name, *settings, "training.max_steps=4").run()
    assert same_state(tmp_path / "earlier" / "latest.safetensors", tmp_path / "today" / "latest.safetensors")


def test_names_of_another_model_stay_as_they_are():
    tensors = {"stranger": torch.zeros(1)}
    assert present_tensors(tensors, ["policy.model.head.bias"]) == tensors
    assert present_objective({"_target_": "mine.Own", "size": 3}) == {"_target_": "mine.Own", "size": 3}
