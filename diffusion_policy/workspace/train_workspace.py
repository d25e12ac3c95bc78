"""Training of a policy: one workspace for every task."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError, choose_device, to_plain
from diffusion_policy.common.files import write_json
from diffusion_policy.common.lock import Lock, locked
from diffusion_policy.common.policy_files import build_policy, save_policy
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.workspace.condition_learner import ConditionLearner
from diffusion_policy.workspace.frozen_encoder_learner import FrozenEncoderLearner
from diffusion_policy.workspace.kept_policies import copy_policy, remove_policy
from diffusion_policy.workspace.learning_rate import learning_rate_factor
from diffusion_policy.workspace.starting_point import start_from, transfer_from
from diffusion_policy.workspace.training_log import LOG_FILE, append_record, keep_until
from diffusion_policy.workspace.training_settings import (
    check_same_policy,
    check_training,
    compare_settings,
    data_fingerprint,
    training_settings,
)
from diffusion_policy.workspace.training_state import (
    STATE_FILE,
    Progress,
    not_finite,
    read_progress,
    read_state,
    write_state,
)
from diffusion_policy.workspace.update import GraphedUpdate, Update

CHECK_LOSS_EVERY = 1000  # steps, at most; checking waits for a GPU to finish
# Scores a policy in its environment: (policy, step) -> mean score.
RolloutFunction = Callable[[nn.Module, int], float]


class TrainWorkspace:
    """Trains `cfg.task.policy` on `cfg.task.dataset` and writes everything under `cfg.output_dir`:

    `latest.safetensors` (weights, EMA weights, optimizer, step; the run resumes from it), `log.jsonl` (one line per logged
    step), `checkpoints/step-<n>/` (EMA policy in this project's form, the `topk` best kept when rollouts score them) and
    `best/` with the best one. Data order and noise depend on (seed, step) alone: a resumed run continues the same
    sequence of batches. What would change it, or what the weights mean, is refused when a training goes on; see
    `compare_settings`. One process trains in a folder at a time.

    Raises:
        ConfigError: settings that cannot be, before anything is read or written.
    """

    def __init__(self, cfg: DictConfig, rollout: RolloutFunction | None = None, wandb_run: Any = None):
        self.cfg, self.rollout, self.wandb_run = cfg, rollout, wandb_run
        self.output_dir = Path(cfg.output_dir)
        check_training(cfg)
        EMAModel(nn.Identity(), **cfg.ema)
        if cfg.objective is not None and rollout is not None:
            raise ConfigError("rollout.n_episodes scores denoising; with another objective leave it at 0")
        if self.output_dir.is_dir():
            with locked(self.output_dir, self.purpose):  # another process there is noticed before the data are read,
                if cfg.resume and self.state_file.exists():
                    progress = read_progress(self.state_file)  # and a damaged state, or one of another policy
                    if progress.settings is not None:
                        check_same_policy(progress.settings, cfg, str(self.state_file))
        self.device = choose_device(cfg.device)
        if cfg.training.precision == "tf32" and self.device.type != "cuda":
            raise ConfigError("training.precision=tf32 is arithmetic of NVIDIA GPUs: use fp32 or bf16 on a CPU")
        if cfg.training.num_threads:
            torch.set_num_threads(int(cfg.training.num_threads))
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cfg.training.precision != "fp32"
            torch.backends.cudnn.benchmark = True  # all batches are of one size
        # Moments of weights that get no gradient decay into denormal numbers, which a CPU handles many times slower.
        torch.set_flush_denormal(True)
        torch.manual_seed(cfg.seed)
        self.config = {"task": cfg.task.name, "policy": to_plain(cfg.task)["policy"]}
        self.train_set, self.val_set = instantiate(cfg.task.dataset)
        self.policy = build_policy(self.config).to(self.device)
        self.policy.set_normalizer(self.train_set.fit_normalizer())
        start = None
        if cfg.init_checkpoint:
            start = start_from(self.policy, Path(cfg.init_checkpoint), cfg.task.name)
        if cfg.transfer_from:
            start = transfer_from(self.policy, Path(cfg.transfer_from), cfg.task.name)
        self.settings = training_settings(cfg, start, data_fingerprint(self.train_set, self.val_set))
        self.learner: nn.Module = self.policy  # what is optimised: the policy, or something around it
        if cfg.objective is not None:
            self.learner = instantiate(cfg.objective, self.policy).to(self.device)
            if isinstance(self.learner, ConditionLearner):
                self.learner.fit_targets(self.train_set)
            if isinstance(self.learner, FrozenEncoderLearner):
                if not cfg.init_checkpoint:
                    raise ConfigError(
                        "objective=frozen_encoder goes on from a policy whose encoder has learned: set init_checkpoint=..."
                    )
                with locked(self.output_dir, self.purpose):
                    self.train_set, self.val_set = self.learner.prepare(
                        self.train_set, self.val_set, self.output_dir / "features", cfg.seed
                    )
        if self.device.type == "cuda" and self.policy.cameras:
            self.policy.obs_encoder.to(memory_format=torch.channels_last)  # as the GPU's convolutions like it
        self.ema = EMAModel(copy.deepcopy(self.learner), **cfg.ema)
        t = cfg.training
        graphed = t.cuda_graph and self.device.type == "cuda" and not isinstance(self.learner, ConditionLearner)
        self.optimizer = torch.optim.AdamW(
            self.learner.optimizer_groups(t.weight_decay),
            betas=tuple(t.betas),
            fused=True,
            capturable=graphed,
            lr=torch.tensor(t.learning_rate, device=self.device) if graphed else t.learning_rate,
        )
        self.update = (GraphedUpdate if graphed else Update)(
            self.training_loss, list(self.learner.parameters()), self.optimizer, t.grad_clip, self.device
        )
        self.step = 0
        self.seconds = 0.0  # training time, summed over resumed runs
        self.scores: dict[str, float] = {}  # checkpoint name -> rollout score
        self.saved_step: int | None = None  # of the state in the output folder, which is finite
        self._lock: Lock | None = None  # while it runs

    @property
    def purpose(self) -> str:
        return f"training of {self.cfg.task.name}"

    @property
    def state_file(self) -> Path:
        return self.output_dir / STATE_FILE

    # ---- state ----
    def save_state(self) -> None:
        """Raises ConfigError if a weight is not finite, or if it cannot be written; the state of before stays then."""
        self._check_weights()
        progress = Progress(self.step, self.ema.optimization_step, self.seconds, self.scores, self.settings)
        self._check_folder()
        try:
            write_state(self.state_file, self.learner, self.ema, self.optimizer, progress)
        except ConfigError:
            self._check_folder()  # removed just now: that is why
            raise
        self.saved_step = self.step

    def load_state(self) -> None:
        progress = read_progress(self.state_file)
        if progress.settings is None:
            print(
                f"{self.state_file} was written by an earlier version, which did not store its settings: they are not compared",
                flush=True,
            )
        else:
            for line in compare_settings(progress.settings, self.settings, str(self.state_file)):
                print(line, flush=True)
        read_state(self.state_file, self.learner, self.ema, self.optimizer, self.device)
        self.step, self.ema.optimization_step = progress.step, progress.ema_step
        self.seconds, self.scores, self.saved_step = progress.seconds, progress.scores, progress.step

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
            self.train_set,
            sampler=order(),
            batch_size=None,
            num_workers=int(self.cfg.training.num_workers),
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
        """Trains from where it stands to the last step.

        Raises:
            ConfigError: another process trains in the folder or the folder is gone; it was trained with other settings; a loss or
                a weight is not finite; nothing can be written.
        """
        with locked(self.output_dir, self.purpose) as self._lock:
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
        print(
            f"{self.cfg.task.name}: {len(self.train_set)} windows, {sum(p.numel() for p in self.policy.model.parameters()):,} "
            f"denoiser parameters, device {self.device}, {torch.get_num_threads()} threads, {t.max_steps} steps",
            flush=True,
        )
        started = time.monotonic() - self.seconds
        batches = self.batches()
        running: list[Tensor] = []  # losses since the last line of the log
        while self.step < t.max_steps:
            factor = learning_rate_factor(self.step, t.max_steps, t.warmup_steps, t.lr_schedule, t.decay_fraction)
            self.learner.train()
            running.append(self.update(next(batches), self.cfg.seed * 1_000_003 + self.step, t.learning_rate * factor))
            self.ema.step(self.learner)
            self.step += 1
            self.seconds = time.monotonic() - started
            last = self.step == t.max_steps
            due = lambda every: every > 0 and (self.step % every == 0 or last)  # noqa: E731
            if (
                any(map(due, (t.log_every, t.save_every, t.checkpoint_every)))
                or last
                or len(running) % CHECK_LOSS_EVERY == 0
            ):
                self._check_losses(running)
                if t.log_every == 0:
                    running.clear()
            if due(t.log_every):
                record = {
                    "step": self.step,
                    "train_loss": torch.stack(running).mean().item(),
                    "lr": t.learning_rate * factor,
                    "seconds": round(self.seconds, 1),
                }
                running.clear()
                if self.val_set is not None and due(t.validate_every):
                    record["val_loss"] = self.validate()
                    self._check_losses([torch.tensor(record["val_loss"])], "the loss on the validation windows")
                self.log(record)
            if due(t.checkpoint_every):
                self.keep_checkpoint()
            if due(t.save_every):
                self.save_state()
        print(
            f"done: {self.step} steps in {self.seconds / 60:.1f} min, policies under {self.output_dir / 'checkpoints'}",
            flush=True,
        )

    def _check_losses(self, losses: list[Tensor], name: str = "the loss") -> None:
        """Of the last steps, the newest last."""
        values = torch.stack(losses).float().cpu()
        finite = torch.isfinite(values)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            self._diverged(f"{name} is {values[first].item()}", self.step - len(losses) + first + 1)

    def _check_weights(self) -> None:
        moments = [
            f"{name} of the optimizer"
            for state in self.optimizer.state.values()
            for name, value in state.items()
            if torch.is_tensor(value) and not torch.isfinite(value).all()
        ]
        if bad := not_finite(self.learner) or not_finite(self.ema.averaged) or moments:
            self._diverged(f"{bad[0]} is not finite", self.step)

    def _diverged(self, what: str, step: int) -> None:
        t = self.cfg.training
        if step == 1 and what.startswith("the loss"):
            why = (
                "It is so in the first step, before anything was learned: the numbers of some demonstrations or of the start are "
                "too large"
            )
        else:
            coarse = "" if t.precision == "fp32" else f" then training.precision={t.precision} (fp32 is finer),"
            why = (
                f"The likeliest cause is training.learning_rate={t.learning_rate}: lower it, or warm up longer (training.warmup_steps);"
                f"{coarse} then gradients that are too large (training.grad_clip={t.grad_clip}), or demonstrations with single numbers "
                "far from the others"
            )
        raise ConfigError(f"{what} at step {step}. {why}. {self._last_state()}")

    def _last_state(self) -> str:
        """Where a training can go on that ends here, in words."""
        if self.saved_step is None or not self.state_file.is_file():
            return "No state has been saved"
        return f"The last state whose numbers are finite is {self.state_file}, of step {self.saved_step}; the command goes on from there"

    def _check_folder(self) -> None:
        if self._lock is not None:
            self._lock.check()

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        self._check_folder()
        try:
            yield
        except OSError as error:
            self._check_folder()
            raise ConfigError(
                f"{what} cannot be written to {self.output_dir} ({error}): make room or make the folder writable. "
                f"{self._last_state()}"
            ) from error

    def log(self, record: dict[str, Any]) -> None:
        with self._writing(LOG_FILE):
            append_record(self.output_dir, record)
        rate = self.seconds / self.step
        left = (self.cfg.training.max_steps - self.step) * rate / 60
        print(
            "  ".join(f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items())
            + f"  ({rate:.3f} s/step, {left:.0f} min left)",
            flush=True,
        )
        if self.wandb_run is not None:
            self.wandb_run.log(record, step=self.step)

    def keep_checkpoint(self) -> None:
        """Writes the EMA policy; with rollouts, scores it and keeps the `topk` best and the newest."""
        self._check_weights()
        folder = self.output_dir / "checkpoints" / f"step-{self.step:06d}"
        policy = self.ema.averaged if self.learner is self.policy else self.ema.averaged.trained_policy()
        largest = max(value.abs().max().item() for value in policy.parameters() if value.numel())
        if largest > torch.finfo(torch.float16).max:
            self._diverged(f"a weight is {largest:.3g}, which no half-precision checkpoint can hold,", self.step)
        with self._writing("a checkpoint"):
            save_policy(folder, policy, self.config, {"weights": "ema", "step": self.step})
        if self.rollout is None:
            return
        self.scores[folder.name] = self.rollout(self.ema.averaged, self.step)
        self.log({"step": self.step, "rollout_score": self.scores[folder.name]})
        ranked = sorted(self.scores, key=self.scores.__getitem__, reverse=True)
        if ranked[0] == folder.name:
            with self._writing("the best checkpoint"):
                copy_policy(folder, self.output_dir / "best")
        for name in ranked[int(self.cfg.training.topk) :]:
            if name != folder.name:
                remove_policy(folder.with_name(name))
                del self.scores[name]
