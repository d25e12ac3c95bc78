"""Other inference engines: a PyTorch module as each of them runs it, with fixed shapes, on a CPU.

A maker takes (module, example inputs, threads, an empty folder) and gives a function of such inputs. What it needs is
imported when it is called; ImportError says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[..., Tensor]


def inductor(module: nn.Module, example: tuple[Tensor, ...], threads: int, folder: Path) -> Run:
    """PyTorch's compiler with weights frozen into the code."""
    import torch._inductor.config as config

    config.freezing = True
    return torch.compile(module, dynamic=False)


def onnx_file(module: nn.Module, example: tuple[Tensor, ...], folder: Path) -> Path:
    path = folder / "module.onnx"
    if not path.exists():
        torch.onnx.export(module, example, str(path), dynamo=True, verbose=False)
    return path


def onnx_runtime(module: nn.Module, example: tuple[Tensor, ...], threads: int, folder: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    file = str(onnx_file(module, example, folder))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *values: torch.from_numpy(session.run(None, dict(zip(names, (v.numpy() for v in values))))[0])


def openvino_in(precision: str) -> Callable[..., Run]:
    def compiled(module: nn.Module, example: tuple[Tensor, ...], threads: int, folder: Path) -> Run:
        import openvino

        network = openvino.Core().compile_model(
            openvino.convert_model(str(onnx_file(module, example, folder))),
            "CPU",
            {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"},
        )
        request = network.create_infer_request()
        return lambda *values: torch.from_numpy(request.infer([v.numpy() for v in values])[0].copy())

    return compiled


PEERS: dict[str, Callable[..., Run]] = {
    "Inductor, frozen": inductor,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino_in("f32"),
    "OpenVINO, bf16": openvino_in("bf16"),
}


def tell(rows: list[dict[str, Any]], apart: dict[str, float], absent: dict[str, str]) -> None:
    """Prints a line per engine, and why others are left out; rows get `apart` of their name as 'max_difference'."""
    for row in rows:
        row["max_difference"] = apart[row["name"]]
        print(f"{row['name']:<34} {row['ms_p50']:8.2f} ms   differs by {row['max_difference']:.0e}")
    for name, reason in absent.items():
        print(f"left out: {name}: {reason}")
