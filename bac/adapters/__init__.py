"""Where the residual branches of known transformers are. An adapter looks at a model and lists its blocks.

An adapter is a function `blocks(model) -> list of Block`, in execution order, empty for models that are not its own.
Models are known by their shape: this package imports no project's code. `bac.cache` tests on the first call that the
list is right.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from bac.adapters import adaln, decoder_layers, policy_transformer, rdt, torch_layers
from bac.blocks import execution_order
from bac.errors import NoDenoiser

#: name -> adapter, in the order in which they are asked
ADAPTERS: dict[str, Callable[[nn.Module], list[str]]] = {
    "policy_transformer": policy_transformer.blocks,
    "torch_layers": torch_layers.blocks,
    "adaln": adaln.blocks,
    "rdt": rdt.blocks,
    "decoder_layers": decoder_layers.blocks,
}


def find_blocks(model: nn.Module, under: str = "") -> tuple[str, ...]:
    """The residual branches of a transformer denoiser, in execution order.

    Args:
        under: only those whose names start so, such as `decoder.`: where a model has a second transformer.

    Raises:
        NoDenoiser: no adapter, or more than one, knows a layer of this model. Then name its blocks yourself:
            `Block(name, kind, layer)` for each branch.
    """
    found = {name: [block for block in adapter(model) if block.startswith(under)] for name, adapter in ADAPTERS.items()}
    known = {name: blocks for name, blocks in found.items() if blocks}
    if len(known) != 1:
        layers = ", ".join(f"{name} ({blocks[0]} ...)" for name, blocks in known.items())
        raise NoDenoiser(
            f"{type(model).__name__} has layers of {len(known)} known kinds{': ' if known else ''}{layers}; choose one "
            "(find_blocks(model, under=...)), or list its branches yourself, as bac.blocks.Block(name, kind, layer)"
        )
    return execution_order(next(iter(known.values())))
