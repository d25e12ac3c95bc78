"""How a process computes while it trains."""

from __future__ import annotations

import torch

from diffusion_policy.common.config import ConfigError


def set_up_arithmetic(device: torch.device, precision: str, num_threads: int | None) -> None:
    """Sets PyTorch's process-wide switches for a training.

    Args:
        precision: 'bf16' (autocast), 'fp32', or 'tf32' for a GPU's faster products of fp32 numbers.
        num_threads: of PyTorch; None: as they are.
    Raises:
        ConfigError: tf32 on a CPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError("training.precision=tf32 is arithmetic of NVIDIA GPUs: use fp32 or bf16 on a CPU")
    if num_threads:
        torch.set_num_threads(num_threads)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.benchmark = True  # all batches are of one size
    # Moments of weights that get no gradient decay into denormal numbers, which a CPU handles many times slower.
    torch.set_flush_denormal(True)
