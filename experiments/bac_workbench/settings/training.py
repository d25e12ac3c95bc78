"""Settings of train, and what they rule out together."""

from __future__ import annotations

from collections.abc import Iterator

from hydra.utils import get_class

from bac_workbench.settings.data import ChosenDataset, dataset_problems
from bac_workbench.settings.kinds import (
    Boolean,
    Count,
    CountOrZero,
    Device,
    EnvSeed,
    NotNegative,
    Path,
    Positive,
    Section,
    Threads,
    choice,
    integer,
    nullable,
    number,
)
from bac_workbench.settings.launcher import Launcher
from bac_workbench.settings.rules import Problem, Values, device_problems, on_gpu, seed_problems
from bac_workbench.settings.task import PathOrNull, Runtime, Task, TaskTraining, Wandb

TrainSeed = integer(0, 2**42)  # each step's own seed is a million times as large


class Training(TaskTraining):
    grad_clip: Positive
    precision: choice("bf16", "fp32", "tf32")
    cuda_graph: Boolean
    num_threads: Threads
    num_workers: integer(0, 1024)
    log_every: CountOrZero
    save_every: CountOrZero
    validate_every: CountOrZero
    checkpoint_every: CountOrZero
    topk: CountOrZero


class Ema(Section):
    update_after_step: CountOrZero
    inv_gamma: Positive
    power: Positive
    min_value: number(0, below=1)
    max_value: number(0, below=1)


class Rollout(Section):
    n_episodes: CountOrZero
    seed_start: EnvSeed
    n_envs: integer(1, 10_000)
    runtime: Runtime


class Objective(Section):
    """Settings of the objectives that come with the project; another one judges its own."""

    embedding_std: nullable(NotNegative)
    modes: Count
    min_scale: Positive
    random_crops: Boolean
    scale_steps: CountOrZero
    n_crops: Count


class Train(Section):
    launcher: Launcher
    task: Task
    dataset: ChosenDataset | None
    seed: TrainSeed
    device: Device
    output_dir: Path
    resume: Boolean
    init_checkpoint: PathOrNull
    transfer_from: PathOrNull
    training: Training
    ema: Ema
    rollout: Rollout
    wandb: Wandb
    objective: Objective | None

    @staticmethod
    def rules(values: Values) -> Iterator[Problem]:
        yield from device_problems(values)
        yield from dataset_problems(values)
        if values("training.precision") == "tf32" and on_gpu(values("device")) is False:
            yield "training.precision", "tf32 is arithmetic of NVIDIA GPUs: use fp32 or bf16 on a CPU"
        if values("init_checkpoint") is not None and values("transfer_from") is not None:
            yield "transfer_from", "init_checkpoint is another place to start from: set one of them"
        if values("training.snr_gamma") is not None and values("task.policy.noise_scheduler.prediction_type") == "flow":
            yield "training.snr_gamma", "it weighs the noise of diffusion: use null with flow matching"
        betas = values("training.betas")
        if betas is not None and len(betas) != 2:
            yield "training.betas", "use two numbers, such as [0.9,0.95]"
        low, high = values("ema.min_value"), values("ema.max_value")
        if low is not None and high is not None and low > high:
            yield "ema.min_value", f"it is above ema.max_value={high:g}"
        yield from seed_problems(
            values("rollout.seed_start"), values("rollout.n_episodes"), "rollout.seed_start", "rollout.n_episodes"
        )
        yield from objective_problems(values)
        for part in ("task.policy", "task.policy.model"):
            width, heads = values(f"{part}.n_emb"), values(f"{part}.n_head")
            if width is not None and heads is not None and width % heads:
                yield f"{part}.n_emb", f"use a multiple of {part}.n_head={heads}"


def objective_problems(values: Values) -> Iterator[Problem]:
    """What the class of the objective says of itself: see `Objective` in `diffusion_policy.workspace.objectives`."""
    target = values("objective._target_")
    if target is None:
        return
    try:
        objective = get_class(target)
    except (ImportError, ValueError) as error:
        yield "objective._target_", f"there is no such class: {str(error).splitlines()[0]}"
        return
    if not (hasattr(objective, "policy_acts") and hasattr(objective, "needs_init_checkpoint")):
        yield "objective._target_", "this class does not keep the contract of an objective (policy_acts, ...)"
        return
    if values("rollout.n_episodes") and not objective.policy_acts:
        yield "rollout.n_episodes", "rollouts score a policy that acts; with this objective leave it at 0"
    if objective.needs_init_checkpoint and values("init_checkpoint") is None:
        yield "init_checkpoint", "this objective goes on from a policy that has learned: name it"
