"""Training of a policy: one workspace for every task and every objective."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError, choose_device, to_plain
from diffusion_policy.common.files import write_json
from diffusion_policy.common.policy_files import build_policy, save_policy
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.workspace.arithmetic import set_up_arithmetic
from diffusion_policy.workspace.batches import training_batches
from diffusion_policy.workspace.check_settings import check_training
from diffusion_policy.workspace.divergence import DivergenceCheck
from diffusion_policy.workspace.kept_policies import keep_best
from diffusion_policy.workspace.learning_rate import learning_rate_factor
from diffusion_policy.workspace.objectives.contract import Objective
from diffusion_policy.workspace.resumed_settings import (
    check_same_policy,
    compare_settings,
    data_fingerprint,
    training_settings,
)
from diffusion_policy.workspace.starting_point import starting_point
from diffusion_policy.workspace.training_folder import TrainingFolder
from diffusion_policy.workspace.training_log import LOG_FILE, keep_until
from diffusion_policy.workspace.training_state import Progress, read_progress, read_state, write_state
from diffusion_policy.workspace.update import build_update

CHECK_LOSS_EVERY = 1000  # steps, at most; checking waits for a GPU to finish
# Scores a policy in its environment: (policy, step) -> mean score.
RolloutFunction = Callable[[nn.Module, int], float]


class TrainWorkspace:
    """Trains `cfg.task.policy` on `cfg.task.dataset` by `cfg.objective` and writes everything under `cfg.output_dir`:

    `latest.safetensors` (weights, EMA weights, optimizer, step; the run resumes from it), `log.jsonl` (one line per
    logged step), `checkpoints/step-<n>/` (EMA policy in this project's form, the `topk` best kept when rollouts score
    them) and `best/` with the best one. Data order and noise depend on (seed, step) alone: a resumed run continues the
    same sequence of batches. What would change it, or what the weights mean, is refused when a training goes on; see
    `compare_settings`. One process trains in a folder at a time.

    Args:
        cfg: composed from `config/train.yaml`.
        rollout: scores each checkpoint; None: none is scored, and all are kept.
        wandb_run: gets every line of the log; may be set later.
    Raises:
        ConfigError: settings that cannot be, before anything is read or written; a start or data that do not fit.
    """

    def __init__(self, cfg: DictConfig, rollout: RolloutFunction | None = None, wandb_run: Any = None):
        self.cfg, self.rollout, self.wandb_run = cfg, rollout, wandb_run
        check_training(cfg)
        EMAModel(nn.Identity(), **cfg.ema)
        if rollout is not None and not get_class(cfg.objective._target_).policy_acts:
            raise ConfigError("rollout.n_episodes scores a policy that acts; with this objective leave it at 0")
        self.folder = TrainingFolder(Path(cfg.output_dir), f"training of {cfg.task.name}")
        self._check_folder()
        self.device = choose_device(cfg.device)
        set_up_arithmetic(self.device, cfg.training.precision, cfg.training.num_threads)
        torch.manual_seed(cfg.seed)
        self.config = {"task": cfg.task.name, "policy": to_plain(cfg.task)["policy"]}
        self.train_set, self.val_set = instantiate(cfg.task.dataset)
        self.policy = build_policy(self.config).to(self.device)
        self.policy.set_normalizer(self.train_set.fit_normalizer())
        start = starting_point(self.policy, cfg.init_checkpoint, cfg.transfer_from, cfg.task.name)
        self.settings = training_settings(cfg, start, data_fingerprint(self.train_set, self.val_set))
        self.objective: Objective = instantiate(cfg.objective, self.policy).to(self.device)
        if self.objective.needs_init_checkpoint and not cfg.init_checkpoint:
            raise ConfigError("this objective goes on from a policy that has learned: set init_checkpoint=...")
        self.train_set, self.val_set = self.objective.prepare(
            self.train_set, self.val_set, self.output_dir / "features", cfg.seed
        )
        if self.device.type == "cuda" and self.policy.cameras:
            self.policy.obs_encoder.to(memory_format=torch.channels_last)  # as the GPU's convolutions like it
        self.ema = EMAModel(copy.deepcopy(self.objective), **cfg.ema)
        self.update = build_update(self.objective, self.training_loss, cfg.training, self.device)
        self.optimizer = self.update.optimizer
        self.step = 0
        self.seconds = 0.0  # training time, summed over resumed runs
        self.scores: dict[str, float] = {}  # checkpoint name -> rollout score
        self.divergence = DivergenceCheck(cfg.training, self.folder.last_state)

    @property
    def output_dir(self) -> Path:
        return self.folder.path

    @property
    def purpose(self) -> str:
        """What this process does in the output folder, for another one that wants to write there."""
        return self.folder.purpose

    @property
    def state_file(self) -> Path:
        return self.folder.state_file

    def _check_folder(self) -> None:
        """Notices another process there, a damaged state or one of another policy before the data are read."""
        if self.output_dir.is_dir():
            with self.folder.held():
                if self.cfg.resume and self.state_file.exists():
                    progress = read_progress(self.state_file)
                    if progress.settings is not None:
                        check_same_policy(progress.settings, self.cfg, str(self.state_file))

    # ---- state ----
    def save_state(self) -> None:
        """Raises ConfigError if a weight is not finite, or if it cannot be written; the state of before stays then."""
        self._check_weights()
        progress = Progress(self.step, self.ema.optimization_step, self.seconds, self.scores, self.settings)
        self.folder.check()
        try:
            write_state(self.state_file, self.objective, self.ema, self.optimizer, progress)
        except ConfigError:
            self.folder.check()  # removed just now: that is why
            raise
        self.folder.saved_step = self.step

    def load_state(self) -> None:
        """Goes on from the state in the output folder.

        Raises:
            ConfigError: it is damaged, or of a training with other settings or data.
        """
        progress = read_progress(self.state_file)
        if progress.settings is None:
            print(
                f"{self.state_file} was written by an earlier version, which did not store its settings: they are not "
                "compared",
                flush=True,
            )
        else:
            for line in compare_settings(progress.settings, self.settings, str(self.state_file)):
                print(line, flush=True)
        read_state(self.state_file, self.objective, self.ema, self.optimizer, self.device)
        self.step, self.ema.optimization_step = progress.step, progress.ema_step
        self.seconds, self.scores, self.folder.saved_step = progress.seconds, progress.scores, progress.step

    def _check_weights(self) -> None:
        self.divergence.check_weights(self.objective, self.ema.averaged, self.optimizer, self.step)

    # ---- data and loss ----
    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Endless shuffled batches from the current step on."""
        t, pin_memory = self.cfg.training, self.device.type == "cuda"
        return training_batches(self.train_set, t.batch_size, self.cfg.seed, self.step, t.num_workers, pin_memory)

    def loss(
        self, objective: Objective, batch: dict[str, Tensor], generator: torch.Generator, **options: Any
    ) -> Tensor:
        """The loss of an objective, a scalar, in the precision of the training."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.cfg.training.precision == "bf16"):
            return objective.compute_loss(batch, generator, **options)

    def training_loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        t = self.cfg.training
        return self.loss(self.objective, batch, generator, snr_gamma=t.snr_gamma, noise_draws=t.noise_draws)

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
        """Trains from where it stands to the last step.

        Raises:
            ConfigError: another process trains in the folder or the folder is gone; it was trained with other settings;
                a loss or a weight is not finite; nothing can be written.
        """
        with self.folder.held():
            self._open()
            self._train()

    def _open(self) -> None:
        """Takes up what is in the output folder."""
        if self.state_file.exists() and self.cfg.resume:
            self.load_state()
            print(f"resuming {self.output_dir} at step {self.step}", flush=True)
        elif self.state_file.exists():
            print(f"resume=false: {self.output_dir} is overwritten", flush=True)
            self.state_file.unlink()  # or the next call would go on from there
        if removed := keep_until(self.output_dir, self.step):
            print(f"{removed} lines of {LOG_FILE} are of steps that are made again", flush=True)
        write_json(self.output_dir / "config.json", to_plain(self.cfg))

    def _train(self) -> None:
        t = self.cfg.training
        n_parameters = sum(parameter.numel() for parameter in self.policy.model.parameters())
        print(
            f"{self.cfg.task.name}: {len(self.train_set)} windows, {n_parameters:,} denoiser parameters, "
            f"device {self.device}, {torch.get_num_threads()} threads, {t.max_steps} steps",
            flush=True,
        )
        started = time.monotonic() - self.seconds
        batches = self.batches()
        losses: list[Tensor] = []  # since the last line of the log
        while self.step < t.max_steps:
            factor = learning_rate_factor(self.step, t.max_steps, t.warmup_steps, t.lr_schedule, t.decay_fraction)
            learning_rate = t.learning_rate * factor
            self.objective.train()
            losses.append(self.update(next(batches), self.cfg.seed * 1_000_003 + self.step, learning_rate))
            self.ema.step(self.objective)
            self.step += 1
            self.seconds = time.monotonic() - started
            writes = any(map(self._is_due, (t.log_every, t.save_every, t.checkpoint_every)))
            if writes or self.step == t.max_steps or len(losses) % CHECK_LOSS_EVERY == 0:
                self.divergence.check_losses(losses, self.step)
                if t.log_every == 0:
                    losses.clear()
            if self._is_due(t.log_every):
                self._log_losses(losses, learning_rate)
                losses.clear()
            if self._is_due(t.checkpoint_every):
                self.keep_checkpoint()
            if self._is_due(t.save_every):
                self.save_state()
        print(
            f"done: {self.step} steps in {self.seconds / 60:.1f} min, policies under {self.folder.checkpoints}",
            flush=True,
        )

    def _is_due(self, every: int) -> bool:
        """Whether what is done every so many steps, and at the end, is done now; 0: never."""
        return every > 0 and (self.step % every == 0 or self.step == self.cfg.training.max_steps)

    def _log_losses(self, losses: list[Tensor], learning_rate: float) -> None:
        record = {
            "step": self.step,
            "train_loss": torch.stack(losses).mean().item(),
            "lr": learning_rate,
            "seconds": round(self.seconds, 1),
        }
        if self.val_set is not None and self._is_due(self.cfg.training.validate_every):
            record["val_loss"] = self.validate()
            self.divergence.check_losses(
                [torch.tensor(record["val_loss"])], self.step, "the loss on the validation windows"
            )
        self.log(record)

    def log(self, record: dict[str, Any]) -> None:
        """Appends to the log, prints, and hands on to Weights & Biases."""
        self.folder.append_to_log(record)
        rate = self.seconds / self.step
        left = (self.cfg.training.max_steps - self.step) * rate / 60
        values = "  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items())
        print(f"{values}  ({rate:.3f} s/step, {left:.0f} min left)", flush=True)
        if self.wandb_run is not None:
            self.wandb_run.log(record, step=self.step)

    def keep_checkpoint(self) -> None:
        """Writes the EMA policy; with rollouts, scores it and keeps the `topk` best and the newest."""
        self._check_weights()
        path = self.folder.checkpoints / f"step-{self.step:06d}"
        policy = self.ema.averaged.trained_policy()
        self.divergence.check_half_precision(policy, self.step)
        with self.folder.writing("a checkpoint"):
            save_policy(path, policy, self.config, {"weights": "ema", "step": self.step})
        if self.rollout is None:
            return
        self.scores[path.name] = self.rollout(policy, self.step)
        self.log({"step": self.step, "rollout_score": self.scores[path.name]})
        with self.folder.writing("the best checkpoint"):
            keep_best(path.parent, self.output_dir / "best", self.scores, path.name, self.cfg.training.topk)
