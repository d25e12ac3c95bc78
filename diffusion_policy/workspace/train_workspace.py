"""Training of a policy: one workspace for every task."""
from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffusion_policy.common.checkpoint import load_policy
from diffusion_policy.common.config import ConfigError, choose_device, to_plain
from diffusion_policy.common.files import atomic_path, write_json
from diffusion_policy.common.policy_files import build_policy, complete_state, distinct_state, save_policy
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.workspace.condition_learner import ConditionLearner
from diffusion_policy.workspace.frozen_encoder_learner import FrozenEncoderLearner
from diffusion_policy.workspace.update import GraphedUpdate, Update

STATE_FILE = "latest.safetensors"
# Scores a policy in its environment: (policy, step) -> mean score.
RolloutFunction = Callable[[nn.Module, int], float]


def learning_rate_factor(step: int, total: int, warmup: int, schedule: str, decay_fraction: float) -> float:
    """Multiplier of the learning rate at `step` (0-based) of `total`."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
    if schedule == "trapezoid":
        return min(1.0, max(0.0, (total - step) / max(1.0, decay_fraction * total)))
    raise ConfigError(f"unknown lr_schedule {schedule!r}: use cosine or trapezoid")


class TrainWorkspace:
    """Trains `cfg.task.policy` on `cfg.task.dataset` and writes everything under `cfg.output_dir`:

    `latest.safetensors` (weights, EMA weights, optimizer, step; the run resumes from it), `log.jsonl` (one line per logged
    step), `checkpoints/step-<n>/` (EMA policy in this project's form, the `topk` best kept when rollouts score them) and
    `best/` with the best one. Data order and noise depend on (seed, step) alone: a resumed run continues the same
    sequence of batches.
    """

    def __init__(self, cfg: DictConfig, rollout: RolloutFunction | None = None, wandb_run: Any = None):
        self.cfg, self.rollout, self.wandb_run = cfg, rollout, wandb_run
        self.output_dir = Path(cfg.output_dir)
        self.device = choose_device(cfg.device)
        if cfg.training.precision not in ("bf16", "tf32", "fp32"):
            raise ConfigError(f"training.precision={cfg.training.precision} is not supported: use bf16, tf32 (GPUs) or fp32")
        if cfg.training.precision == "tf32" and self.device.type != "cuda":
            raise ConfigError("training.precision=tf32 is arithmetic of NVIDIA GPUs: use fp32 or bf16 on a CPU")
        if cfg.training.num_threads:
            torch.set_num_threads(int(cfg.training.num_threads))
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cfg.training.precision != "fp32"
            torch.backends.cudnn.benchmark = True       # all batches are of one size
        # Moments of weights that get no gradient decay into denormal numbers, which a CPU handles many times slower.
        torch.set_flush_denormal(True)
        torch.manual_seed(cfg.seed)
        self.config = {"task": cfg.task.name, "policy": to_plain(cfg.task)["policy"]}
        self.train_set, self.val_set = instantiate(cfg.task.dataset)
        self.policy = build_policy(self.config).to(self.device)
        self.policy.set_normalizer(self.train_set.fit_normalizer())
        if cfg.init_checkpoint and cfg.transfer_from:
            raise ConfigError("init_checkpoint and transfer_from are two places to start from: set one of them")
        if cfg.init_checkpoint:
            self.start_from(Path(cfg.init_checkpoint))
        if cfg.transfer_from:
            self.transfer_from(Path(cfg.transfer_from))
        self.learner: nn.Module = self.policy       # what is optimised: the policy, or something around it
        if cfg.objective is not None:
            if rollout is not None:
                raise ConfigError("rollout.n_episodes scores denoising; with another objective leave it at 0")
            self.learner = instantiate(cfg.objective, self.policy).to(self.device)
            if isinstance(self.learner, ConditionLearner):
                self.learner.fit_targets(self.train_set)
            if isinstance(self.learner, FrozenEncoderLearner):
                if not cfg.init_checkpoint:
                    raise ConfigError("objective=frozen_encoder goes on from a policy whose encoder has learned: set init_checkpoint=...")
                folder = self.output_dir / "features"
                self.train_set, self.val_set = self.learner.prepare(self.train_set, self.val_set, folder, cfg.seed)
        if self.device.type == "cuda" and self.policy.cameras:
            self.policy.obs_encoder.to(memory_format=torch.channels_last)   # as the GPU's convolutions like it
        self.ema = EMAModel(copy.deepcopy(self.learner), **cfg.ema)
        t = cfg.training
        graphed = t.cuda_graph and self.device.type == "cuda" and not isinstance(self.learner, ConditionLearner)
        self.optimizer = torch.optim.AdamW(
            self.learner.optimizer_groups(t.weight_decay), betas=tuple(t.betas), fused=True, capturable=graphed,
            lr=torch.tensor(t.learning_rate, device=self.device) if graphed else t.learning_rate,
        )
        self.update = (GraphedUpdate if graphed else Update)(
            self.training_loss, list(self.learner.parameters()), self.optimizer, t.grad_clip, self.device)
        self.step = 0
        self.seconds = 0.0  # training time, summed over resumed runs
        self.scores: dict[str, float] = {}  # checkpoint name -> rollout score

    def start_from(self, path: Path) -> None:
        """Takes over weights and normalizer of a trained policy; the optimizer starts anew.

        Raises:
            CheckpointError: nothing loadable is at `path`; ConfigError: it is another model.
        """
        trained = load_policy(path, device=self.device)
        try:
            self.policy.load_state_dict(trained.policy.state_dict())
        except RuntimeError as error:
            raise ConfigError(f"init_checkpoint={path} is another model than task {self.cfg.task.name} trains\n{error}") from error
        print(f"starting from {trained}", flush=True)

    def transfer_from(self, path: Path) -> None:
        """Takes over what another task's policy has learned: every parameter that has the same name and shape here.

        The normalizer stays the one of this task's data, as does everything that depends on its sizes.

        Raises:
            CheckpointError: nothing loadable is at `path`; ConfigError: it has no layer in common with this policy.
        """
        trained = load_policy(path, device=self.device)
        own = {name: p for name, p in self.policy.named_parameters() if p.numel() and not name.startswith("normalizer.")}
        found = dict(trained.policy.named_parameters())
        fits = {name for name, p in own.items() if name in found and found[name].shape == p.shape}
        if not any(".layers." in name for name in fits):
            raise ConfigError(f"transfer_from={path}: no layer of it fits the policy of task {self.cfg.task.name}")
        with torch.no_grad():
            for name in fits:
                own[name].copy_(found[name])
        print(f"taking over {len(fits)} of {len(own)} parameters of {trained}; new: {', '.join(sorted(own.keys() - fits)) or 'none'}",
              flush=True)

    # ---- state ----
    def save_state(self) -> None:
        tensors: dict[str, Tensor] = {}
        for prefix, module in (("model.", self.learner), ("ema.", self.ema.averaged)):
            tensors.update({prefix + name: value.contiguous() for name, value in distinct_state(module).items()})
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()})
        header = {"step": self.step, "ema_step": self.ema.optimization_step, "seconds": self.seconds, "scores": self.scores}
        with atomic_path(self.output_dir / STATE_FILE) as path:
            save_file(tensors, path, metadata={"state": json.dumps(header)})

    def load_state(self) -> None:
        path = self.output_dir / STATE_FILE
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                header = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except Exception as error:
            raise ConfigError(f"{path} cannot be read ({error}): move it away, or start over with resume=false") from error
        part = lambda prefix: {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
        try:
            self.learner.load_state_dict(complete_state(self.learner, part("model.")))
            self.ema.averaged.load_state_dict(complete_state(self.ema.averaged, part("ema.")))
        except RuntimeError as error:
            raise ConfigError(
                f"{path} belongs to another model or task: choose another output_dir, or start over with resume=false\n{error}"
            ) from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimizer.").items():
            index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if any(index >= len(parameters) or moments["exp_avg"].shape != parameters[index].shape for index, moments in state.items()):
            # The fused optimizer would write past the end of them.
            raise ConfigError(f"{path} holds the optimizer of other parameters: choose another output_dir, or start over with resume=false")
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.step, self.ema.optimization_step = header["step"], header["ema_step"]
        self.seconds, self.scores = header["seconds"], header["scores"]

    # ---- data ----
    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Endless shuffled batches from the current step on."""
        size = min(int(self.cfg.training.batch_size), len(self.train_set))
        per_epoch = len(self.train_set) // size

        def order() -> Iterator[list[int]]:
            step = self.step
            while True:
                shuffle = torch.Generator().manual_seed(self.cfg.seed * 100_003 + step // per_epoch)
                permutation = torch.randperm(len(self.train_set), generator=shuffle)
                for index in range(step % per_epoch, per_epoch):
                    yield permutation[index * size : (index + 1) * size]
                    step += 1

        loader = torch.utils.data.DataLoader(
            self.train_set, sampler=order(), batch_size=None, num_workers=int(self.cfg.training.num_workers),
            pin_memory=self.device.type == "cuda",
        )
        yield from loader

    def loss(self, learner: nn.Module, batch: dict[str, Tensor], generator: torch.Generator, **options: Any) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cfg.training.precision == "bf16"):
            return learner.compute_loss(batch, generator, **options)

    def training_loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        t = self.cfg.training
        return self.loss(self.learner, batch, generator, snr_gamma=t.snr_gamma, noise_draws=int(t.noise_draws))

    @torch.no_grad()
    def validate(self, batch_size: int = 512) -> float:
        """Mean loss of the EMA weights on the validation windows; the same noise every time."""
        total = 0.0
        for start in range(0, len(self.val_set), batch_size):
            rows = torch.arange(start, min(start + batch_size, len(self.val_set)))
            batch = {name: value.to(self.device) for name, value in self.val_set[rows].items()}
            generator = torch.Generator(self.device).manual_seed(start)
            total += self.loss(self.ema.averaged, batch, generator).item() * len(rows)
        return total / len(self.val_set)

    # ---- the loop ----
    def run(self) -> None:
        t = self.cfg.training
        if (self.output_dir / STATE_FILE).exists():
            if self.cfg.resume:
                self.load_state()
                print(f"resuming {self.output_dir} at step {self.step}", flush=True)
            else:
                print(f"resume=false: {self.output_dir} is overwritten", flush=True)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.output_dir / "config.json", to_plain(self.cfg))
        print(
            f"{self.cfg.task.name}: {len(self.train_set)} windows, {sum(p.numel() for p in self.policy.model.parameters()):,} "
            f"denoiser parameters, device {self.device}, {torch.get_num_threads()} threads, {t.max_steps} steps", flush=True,
        )
        started = time.monotonic() - self.seconds
        batches = self.batches()
        running: list[Tensor] = []
        while self.step < t.max_steps:
            factor = learning_rate_factor(self.step, t.max_steps, t.warmup_steps, t.lr_schedule, t.decay_fraction)
            self.learner.train()
            running.append(self.update(next(batches), self.cfg.seed * 1_000_003 + self.step, t.learning_rate * factor))
            self.ema.step(self.learner)
            self.step += 1
            self.seconds = time.monotonic() - started
            last = self.step == t.max_steps
            due = lambda every: every > 0 and (self.step % every == 0 or last)  # noqa: E731
            if due(t.log_every):
                record = {"step": self.step, "train_loss": torch.stack(running).mean().item(), "lr": t.learning_rate * factor,
                          "seconds": round(self.seconds, 1)}
                running.clear()
                if self.val_set is not None and due(t.validate_every):
                    record["val_loss"] = self.validate()
                if not math.isfinite(record["train_loss"]):
                    raise ConfigError(f"the loss is {record['train_loss']} at step {self.step}: lower training.learning_rate; "
                                      f"the last good state is {self.output_dir / STATE_FILE}")
                self.log(record)
            if due(t.checkpoint_every):
                self.keep_checkpoint()
            if due(t.save_every):
                self.save_state()
        print(f"done: {self.step} steps in {self.seconds / 60:.1f} min, policies under {self.output_dir / 'checkpoints'}", flush=True)

    def log(self, record: dict[str, Any]) -> None:
        with open(self.output_dir / "log.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        rate = self.seconds / self.step
        left = (self.cfg.training.max_steps - self.step) * rate / 60
        print("  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items())
              + f"  ({rate:.3f} s/step, {left:.0f} min left)", flush=True)
        if self.wandb_run is not None:
            self.wandb_run.log(record, step=self.step)

    def keep_checkpoint(self) -> None:
        """Writes the EMA policy; with rollouts, scores it and keeps the `topk` best and the newest."""
        folder = self.output_dir / "checkpoints" / f"step-{self.step:06d}"
        policy = self.ema.averaged if self.learner is self.policy else self.ema.averaged.trained_policy()
        save_policy(folder, policy, self.config, {"weights": "ema", "step": self.step})
        if self.rollout is None:
            return
        self.scores[folder.name] = self.rollout(self.ema.averaged, self.step)
        self.log({"step": self.step, "rollout_score": self.scores[folder.name]})
        ranked = sorted(self.scores, key=self.scores.__getitem__, reverse=True)
        if ranked[0] == folder.name:
            shutil.copytree(folder, self.output_dir / "best", dirs_exist_ok=True)
        for name in ranked[int(self.cfg.training.topk):]:
            if name != folder.name:
                shutil.rmtree(folder.with_name(name), ignore_errors=True)
                del self.scores[name]
