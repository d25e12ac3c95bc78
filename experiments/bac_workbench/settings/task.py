"""What config/task/*.yaml holds, as far as every task means the same by it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bac_workbench.settings.choices import HORIZONS, RUNTIMES
from bac_workbench.settings.kinds import (
    NO_CONTROL,
    Boolean,
    Count,
    CountOrZero,
    EnvSeed,
    FileName,
    Kind,
    NoiseSeed,
    NotNegative,
    Path,
    Positive,
    Section,
    Share,
    Text,
    choice,
    integer,
    list_of,
    nullable,
    number,
)

Runtime = choice(*RUNTIMES)
Weights = choice("ema", "raw")
Precision = choice("fp32", "bf16", "int8", "fp16")
ActingHorizon = choice(*HORIZONS)
Horizon = integer(1, 10_000)
Size = integer(1, 100_000)
Drop = number(0, below=1)
Moment = number(0, below=1)
PathOrNull = nullable(Path)
LONGEST_TAG = 64  # characters, in Weights & Biases
Tag = Annotated[
    str,
    Field(pattern=rf"^{NO_CONTROL}[^\x00-\x20\x7f]{NO_CONTROL}$", max_length=LONGEST_TAG),
    Kind(f"a text of 1 to {LONGEST_TAG} characters", text=True),
]


class Environment(Section):
    max_steps: nullable(Count)
    legacy_test: Boolean
    abs_action: Boolean
    obs_eef_target: Boolean
    robot_noise_ratio: NotNegative
    initial_states: PathOrNull
    image: Boolean
    reflections: Boolean


class Seeds(Section):
    train_start_seed: EnvSeed
    test_start_seed: EnvSeed


class Demonstrator(Section):
    max_steps: Count
    perturbation_rate: Share
    action_noise: NotNegative
    noise: NotNegative
    n_tasks: integer(1, 7)
    reflections: Boolean


class Demos(Section):
    source: Text
    demonstrator: Demonstrator
    n_episodes: Count


class DatasetWindows(Section):
    horizon: Horizon
    pad_before: CountOrZero
    pad_after: CountOrZero
    val_ratio: number(0, below=1)
    max_train_episodes: nullable(Count)
    seed: NoiseSeed


class Dataset(Section):
    windows: DatasetWindows
    n_obs_steps: Horizon
    zarr_path: Path
    dataset_path: Path
    dataset_dir: Path
    further_paths: list_of(Path, "[data/more.zarr]", empty=True)
    further_fields: list_of(Text, "[object_pose]", empty=True)
    abs_action: Boolean
    obs_eef_target: Boolean
    effector_noise: NotNegative
    noise_ratio: NotNegative
    symmetries: Boolean
    reflections: Boolean


class Transformer(Section):
    horizon: Horizon
    n_obs_steps: Horizon
    input_dim: Size
    output_dim: Size
    cond_dim: CountOrZero
    n_layer: integer(1, 1000)
    n_cond_layers: integer(0, 1000)
    n_head: integer(1, 1000)
    n_emb: Size
    p_drop_emb: Drop
    p_drop_attn: Drop
    causal_attn: Boolean
    time_as_cond: Boolean
    obs_as_cond: Boolean


class NoiseScheduler(Section):
    num_train_timesteps: integer(1, 100_000)
    beta_start: number(above=0, below=1)
    beta_end: number(above=0, below=1)
    beta_schedule: choice("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")
    variance_type: nullable(
        choice("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
    )
    clip_sample: Boolean
    prediction_type: choice("epsilon", "sample", "v_prediction", "flow")


class Policy(Transformer):
    obs_dim: Size
    action_dim: Size
    n_action_steps: Horizon
    num_inference_steps: nullable(integer(1, 100_000))
    pred_action_steps_only: Boolean
    crop_shape: nullable(list_of(Count, "[76,76]", distinct=False))
    obs_encoder_group_norm: Boolean
    eval_fixed_crop: Boolean
    model: Transformer
    noise_scheduler: NoiseScheduler


class TaskTraining(Section):
    batch_size: Count
    max_steps: integer(1, 1_000_000_000)
    learning_rate: NotNegative
    betas: list_of(Moment, "[0.9,0.95]", distinct=False)
    weight_decay: NotNegative
    lr_schedule: choice("cosine", "trapezoid")
    warmup_steps: integer(0, 1_000_000_000)
    decay_fraction: Share
    snr_gamma: nullable(Positive)
    noise_draws: Count


class Task(Section):
    name: FileName
    original: nullable(Text)
    horizon: Horizon
    n_obs_steps: Horizon
    n_action_steps: Horizon
    n_latency_steps: CountOrZero
    obs_dim: Size
    action_dim: Size
    n_arms: integer(1, 2)
    abs_action: Boolean
    obs_eef_target: Boolean
    robomimic_task: choice("lift", "can", "square", "transport", "tool_hang")
    demonstrations: choice("ph", "mh")
    checkpoint: PathOrNull
    fps: Positive
    environment: Environment | None
    seeds: Seeds
    demos: Demos | None
    dataset: Dataset
    policy: Policy
    training: TaskTraining


class Wandb(Section):
    mode: choice("online", "offline", "disabled")
    project: Text
    entity: nullable(Text)
    name: nullable(Text)
    group: nullable(Text)
    tags: nullable(list_of(Tag, "[paper,table2]", empty=True))
    extra_tags: list_of(Tag, "[paper,table2]", empty=True)
