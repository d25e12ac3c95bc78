"""The vision encoder in native code (bac/native): all cameras of an observation in one call.

Known is the encoder of this project's image policies: a ResNet-18 with group or batch normalisation for each camera,
spatial softmax, a linear layer. Weights are kept in half precision where that is exact: reading them takes longer than
multiplying them. 3x3 convolutions run in fewer multiplications: by tiles (`bac.native.winograd`), on small maps without
the taps that only see padding. With precision=bf16 they multiply bfloat16 numbers and sum in float32.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from ctypes import c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bac.native import build, engine
from bac.native.levels import choose_level
from bac.native.packing import is_half, pack
from bac.native.structs import Camera, Conv, Encoder, Frames, Keep, Matrix, Norm, Residual, array
from bac.native.winograd import choose_tile, transform
from bac.runtime.vision_checks import EncoderSnapshot, why_opaque


def why_unknown(module: nn.Module) -> str | None:
    """Why the native library cannot encode what `module` does, in words; None if it can."""
    opaque = why_opaque(module)
    if opaque is not None:
        return opaque
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        return "it is not on the CPU"
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d) and not _is_plain(part):
            return f"its {name} is a convolution of another form"
        if isinstance(part, nn.GroupNorm) and part.num_channels % (16 * part.num_groups):
            return f"its {name} has groups of {part.num_channels // part.num_groups} channels"
        if isinstance(part, nn.BatchNorm2d) and not part.track_running_stats:
            return f"its {name} normalises with the batch at hand"
    return None


def _is_plain(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    sizes = (conv.kernel_size, conv.stride, conv.padding)
    return plain and all(not isinstance(size, str) and size[0] == size[1] for size in sizes)


def _after(module: Any, shape: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what a convolution or pooling gives for a map of such a shape."""

    def scalar(value: Any) -> int:
        return value[0] if isinstance(value, tuple) else value

    size, stride, padding = map(scalar, (module.kernel_size, module.stride, module.padding))
    return (shape[0] + 2 * padding - size) // stride + 1, (shape[1] + 2 * padding - size) // stride + 1


class NativeEncoder:
    """Encodes observations as `module` (an ObservationEncoder) does in evaluation.

    A frame's features do not depend on the frames beside it, nor on the number of threads, bit for bit.

    Args:
        module: one for which `why_unknown` is None.
        precision: fp32 or bf16.
        threads: torch's number of threads unless given.

    Attributes:
        prepare_seconds: what packing took.

    Raises:
        NativeError: there is no native library (see `bac.native.build.library`).
    """

    @torch.no_grad()
    def __init__(self, module: nn.Module, precision: str = "fp32", threads: int | None = None):
        started = time.perf_counter()
        self.module, self.precision, self.threads = module, precision, threads
        self.library = build.library()
        self.level = choose_level(self.library)
        self.keep = Keep()
        encoder: Any = module
        self.names = list(encoder.obs_nets)  # of the cameras
        cameras, at = [], 0
        self.columns: dict[str, slice] = {}  # of a row of features, by the observation's name
        for name, shape in encoder.shapes.items():
            if name in encoder.obs_nets:
                cameras.append(self._camera(encoder.obs_nets[name], shape, encoder.crop_shape, at))
            width = cameras[-1].features if name in encoder.obs_nets else shape[0]
            self.columns[name] = slice(at, at + width)
            at += width
        self.native = Encoder(cameras=len(cameras), width=at, camera=array(Camera, cameras, self.keep))
        self.snapshot = EncoderSnapshot(module)
        self.prepare_seconds = time.perf_counter() - started

    @property
    def words(self) -> str:
        """What runs, in words."""
        return f"compiled, {self.precision}"

    def __deepcopy__(self, memo: dict) -> NativeEncoder:
        """The copy of a policy gets an encoder packed from the copied weights."""
        return NativeEncoder(copy.deepcopy(self.module, memo), self.precision, self.threads)

    def _form(self, weight: Tensor) -> str:
        return "half" if "half" in self.level.formats and is_half(weight) else "float"

    def _linear(self, weight: Tensor, bias: Tensor) -> Matrix:
        return pack(weight, bias, self.keep, self._form(weight))

    def _conv(self, conv: nn.Conv2d, norm: nn.Module, shape: tuple[int, int]) -> Conv:
        channels, size, stride, padding = conv.in_channels, conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        tile = choose_tile(channels, size, stride, padding, _after(conv, shape), self.precision)
        if tile:
            flat = transform(conv.weight, tile).flatten(1)  # [out, point row, point column, channel]
        else:
            flat = conv.weight.permute(0, 2, 3, 1).flatten(1)  # [out, kernel row, kernel column, channel]
            flat = F.pad(flat, (0, flat.shape[1] % 2))
        form = "bfloat" if self.precision == "bf16" else self._form(flat)
        weight = pack(flat, torch.zeros(len(flat)), self.keep, form)
        return Conv(weight, self._norm(norm), channels, size, stride, padding, tile)

    def _norm(self, norm: Any) -> Norm:
        if isinstance(norm, nn.GroupNorm):
            return Norm(self.keep(norm.weight), self.keep(norm.bias), norm.num_groups, norm.eps)
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        return Norm(self.keep(gain), self.keep(norm.bias - norm.running_mean * gain), 0, norm.eps)

    def _residual(self, block: Any, shape: tuple[int, int]) -> Residual:
        shortcut = Conv() if block.downsample is None else self._conv(block.downsample[0], block.downsample[1], shape)
        first = self._conv(block.conv1, block.bn1, shape)
        return Residual(first, self._conv(block.conv2, block.bn2, _after(block.conv1, shape)), shortcut)

    def _camera(self, net: Any, shape: tuple[int, ...], crop: tuple[int, int] | None, at: int) -> Camera:
        stem, norm, _, pool, *stages = net.backbone.nets
        keypoints, linear = net.pool.nets, net.nets[-1]
        size = (shape[1], shape[2]) if crop is None else crop
        blocks, now = [], _after(pool, _after(stem, size))
        for block in (block for stage in stages for block in stage):
            blocks.append(self._residual(block, now))
            now = _after(block.conv2, _after(block.conv1, now))
        top, left = (round((whole - part) / 2) for whole, part in zip(shape[1:], size))
        return Camera(
            *shape,
            top,
            left,
            *size,
            pool.kernel_size,
            pool.stride,
            pool.padding,
            self._conv(stem, norm, size),
            len(blocks),
            array(Residual, blocks, self.keep),
            self._linear(keypoints.weight.flatten(1), keypoints.bias),
            self.keep(net.pool.pos_x),
            self.keep(net.pool.pos_y),
            1 / net.pool.temperature.item(),
            keypoints.out_channels,
            self._linear(linear.weight, linear.bias),
            linear.out_features,
            at,
        )

    @torch.no_grad()
    def __call__(self, nobs: Mapping[str, Tensor]) -> Tensor:
        """Normalised observations [B, To, *shape] by name -> features [B, To, Do].

        Raises:
            RuntimeError: see `EncoderSnapshot.check`.
        """
        self.snapshot.check()
        batch, steps = nobs[self.names[0]].shape[:2]
        out = torch.empty(batch, steps, self.native.width)
        keep = Keep()
        images = (c_void_p * len(self.names))(*(keep(nobs[name]) for name in self.names))
        call = Frames(batch * steps, self.threads or torch.get_num_threads(), self.level.number, images, out.data_ptr())
        engine.encode(self.library, self.native, call)
        self.copy_numbers(nobs, out)
        return out

    def copy_numbers(self, nobs: Mapping[str, Tensor], features: Tensor) -> None:
        """Writes the observations that are no images into their columns of `features` [B, To, Do]."""
        for name, columns in self.columns.items():
            if name not in self.names:
                features[..., columns] = nobs[name]
