"""What a training asks of an objective: what is minimised, on which data, and which policy comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from diffusion_policy.policy.diffusion_transformer_policy import DiffusionTransformerPolicy


class Objective(Protocol):
    """An `nn.Module` around a policy. `TrainWorkspace` optimises, averages and stores its parameters.

    It is built by `config/objective/<name>.yaml`: `_target_` names the class, the other entries are arguments after the
    policy. A new objective is such a class and such a file.

    Attributes:
        policy: what is trained, in place.
        needs_init_checkpoint: whether the training has to start from a trained policy (`init_checkpoint`).
        policy_acts: whether the trained policy acts in its environment, so that rollouts can score it.
        recordable: whether a training step is the same sequence of kernels every time, as a CUDA graph needs it.
    """

    policy: DiffusionTransformerPolicy
    needs_init_checkpoint: ClassVar[bool]
    policy_acts: ClassVar[bool]
    recordable: ClassVar[bool]

    def prepare(self, train: Dataset, val: Dataset | None, folder: Path, seed: int) -> tuple[Dataset, Dataset | None]:
        """Looks at the data once, before the first step.

        Args:
            train, val: windows of demonstrations, as the task's data set gives them.
            folder: for files that the next start of this training can use again.
            seed: of the training, for whatever is drawn.
        Returns:
            The data sets whose batches `compute_loss` takes.
        Raises:
            ConfigError: the data lack something that the objective needs.
        """

    def compute_loss(
        self,
        batch: Mapping[str, Tensor],
        generator: Any = None,
        snr_gamma: float | None = None,
        noise_draws: int = 1,
    ) -> Tensor:
        """The scalar to minimise.

        Args:
            batch: tensors [B, ...] by name, on the policy's device.
            generator: of everything that is drawn, apart from dropout.
            snr_gamma, noise_draws: of the denoising loss, see `DiffusionTransformerPolicy.denoising_loss`; an objective
                without denoising does not look at them.
        """

    def optimizer_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """What is optimised, as parameter groups of PyTorch's optimizers."""

    def trained_policy(self) -> DiffusionTransformerPolicy:
        """The policy to keep. It may share its weights with the objective."""

    # ---- of nn.Module ----
    def train(self, mode: bool = True) -> nn.Module:
        """Decides about dropout, and whether images are cropped at random (`set_random_crops`)."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Tensor]: ...


def set_random_crops(policy: DiffusionTransformerPolicy, random_crops: bool) -> None:
    """Makes a policy look at random crops of its images or at their centre; leaves one without cameras as it is."""
    if policy.cameras:
        policy.obs_encoder.random_crops = random_crops
