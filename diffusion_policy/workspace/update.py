"""One training step: loss, gradient, optimizer; on a GPU recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from diffusion_policy.common.config import ConfigError
from diffusion_policy.workspace.objectives.contract import Objective

# The loss of a batch; all that it draws comes from the generator and from PyTorch's global one.
LossFunction = Callable[[Mapping[str, Tensor], torch.Generator], Tensor]


class Update:
    """Called with a batch, a seed and a learning rate, makes one step of the optimizer and returns the loss, a scalar.

    What is drawn depends on the seed alone.

    Args:
        parameters: those of the optimizer; their gradient is clipped to the norm `grad_clip`.
    Raises:
        ConfigError: `grad_clip` is not positive.
    """

    def __init__(
        self,
        loss: LossFunction,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        grad_clip: float,
        device: torch.device,
    ):
        if not grad_clip > 0:
            raise ConfigError(f"grad_clip={grad_clip} is not possible: use a norm above 0")
        self.loss, self.parameters, self.optimizer, self.grad_clip = loss, parameters, optimizer, grad_clip
        self.generator = torch.Generator(device)

    def __call__(self, batch: Mapping[str, Tensor], seed: int, learning_rate: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._seed(seed)
        return self._update({name: value.to(self.generator.device, non_blocking=True) for name, value in batch.items()})

    def _seed(self, seed: int) -> None:
        torch.manual_seed(seed)  # of dropout, which knows no generator
        self.generator.manual_seed(seed)

    def _update(self, batch: Mapping[str, Tensor]) -> Tensor:
        loss = self.loss(batch, self.generator)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class GraphedUpdate(Update):
    """The same on a GPU, as one CUDA graph.

    A step of a small denoiser is a thousand kernels of some microseconds each, and launching them one by one takes
    several times as long as they do. The first `WARM_UP` steps run one by one, as usual, then one is recorded; every
    later one copies its batch, seed and learning rate to where the graph reads them. Batches have to be of one size,
    and the optimizer `capturable`.
    """

    WARM_UP = 3

    def __init__(self, *args):
        super().__init__(*args)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: dict[str, Tensor] = {}
        self.result: Tensor | None = None
        self.steps = 0
        self.stream = torch.cuda.Stream(self.generator.device)

    def __call__(self, batch: Mapping[str, Tensor], seed: int, learning_rate: float) -> Tensor:
        if not self.batch:
            self.batch = {name: torch.empty_like(value, device=self.generator.device) for name, value in batch.items()}
        for name, value in batch.items():
            if value.shape != self.batch[name].shape:
                raise ValueError(
                    f"a batch with {name} {list(value.shape)} after one with {list(self.batch[name].shape)}: "
                    "a recorded step takes one size only"
                )
            self.batch[name].copy_(value, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(learning_rate)
        self.steps += 1
        if self.steps <= self.WARM_UP:  # memory and libraries are set up on the way, which cannot be recorded
            self._seed(seed)
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                loss = self._update(self.batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return loss
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(self.generator)
            # Of this thread alone: meanwhile the loader's allocates memory for the next batches.
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.result = self._update(self.batch)
        self._seed(seed)
        self.graph.replay()
        return self.result.clone()


def build_update(objective: Objective, loss: LossFunction, training: DictConfig, device: torch.device) -> Update:
    """The training step of an objective with AdamW; recorded if setting, device and objective allow it.

    Args:
        training: the settings under `training`.
    Raises:
        ConfigError: `training.grad_clip` is not positive, or the objective cannot train its policy.
    """
    recorded = training.cuda_graph and device.type == "cuda" and objective.recordable
    rate = training.learning_rate
    optimizer = torch.optim.AdamW(
        objective.optimizer_groups(training.weight_decay),
        betas=tuple(training.betas),
        fused=True,
        capturable=recorded,
        lr=torch.tensor(rate, device=device) if recorded else rate,
    )
    kind = GraphedUpdate if recorded else Update
    return kind(loss, list(objective.parameters()), optimizer, training.grad_clip, device)
