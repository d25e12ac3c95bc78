"""What settings rule out together; one function for each thing that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from diffusion_policy.common.config import ConfigError, choose_device

# Name of a setting and what is wrong with it.
Problem = tuple[str, str]
# values("eval.n_test"): the value, or None where it is null, absent or wrong by itself.
Values = Callable[[str], Any]


def on_gpu(device: str | None) -> bool | None:
    """None: a device that is not here, which is a problem of its own."""
    if device in (None, "cpu"):
        return None if device is None else False
    try:
        return choose_device(device).type == "cuda"
    except ConfigError:
        return None


def device_problems(values: Values) -> Iterator[Problem]:
    if values("device") not in (None, "auto", "cpu"):  # these are always there; for others torch is asked
        try:
            choose_device(values("device"))
        except ConfigError as error:
            yield "device", str(error)


def precision_problems(values: Values, runtimes: list[str | None]) -> Iterator[Problem]:
    """Which precision each runtime computes in.

    reference: fp32; planned and compiled: also bf16 and, on a GPU, fp16; compiled on a CPU also int8. Whether this
    processor multiplies bf16 or int8 is asked when `compiled` is prepared.
    """
    precision = values("precision")
    if precision in (None, "fp32"):
        return
    gpu = on_gpu(values("device"))
    for runtime in runtimes:
        if runtime == "reference":
            yield "precision", "runtime=reference computes in fp32: use precision=fp32"
        elif runtime is not None and precision == "fp16" and gpu is False:
            yield "precision", "fp16 needs a GPU: on a CPU use fp32, bf16 or int8"
        elif runtime is not None and precision == "int8" and gpu:
            yield "precision", "int8 needs a CPU: on a GPU use fp32, bf16 or fp16"
        elif runtime == "planned" and precision == "int8":
            yield "precision", "int8 needs runtime=compiled: use that, or precision=bf16"


def seed_problems(start: int | None, count: int | None, start_name: str, count_name: str) -> Iterator[Problem]:
    if start is not None and count is not None and start + count > 2**32:
        yield (
            start_name,
            f"{count_name}={count} seeds from there on end beyond {2**32 - 1:,}, the last seed of an environment",
        )
