"""Names of the cacheable blocks of a Transformer Diffusion Policy.

A *block* is one residual branch of one transformer layer, ``x <- x + block(norm(x), ...)``, and is the unit
BAC caches (arXiv 2506.13456). Its name says where it sits: ``decoder.layers.3.ca`` is the cross-attention of
decoder layer 3. Blocks run layer by layer; inside a layer the order is

* decoder layer: self-attention ``sa``, cross-attention ``ca``, feed-forward ``ffn``;
* encoder layer (the encoder-only, BERT-style denoiser): ``sa``, ``ffn``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bac.strict_json import repeated, short_repr, some

MAX_LAYER_DIGITS = 6  # far above any model; int() of a long text is slow

#: Kinds of block in one layer of each stack, in execution order.
KINDS: dict[str, tuple[str, ...]] = {"decoder": ("sa", "ca", "ffn"), "encoder": ("sa", "ffn")}

#: What the kinds are called in figures and tables.
KIND_TITLES: dict[str, str] = {"sa": "self-attention", "ca": "cross-attention", "ffn": "feed-forward"}


class BlockId(NamedTuple):
    """A parsed block name: ``decoder.layers.3.ca`` is ``BlockId("decoder", 3, "ca")``."""

    stack: str
    layer: int
    kind: str

    @property
    def name(self) -> str:
        """The full name, such as ``decoder.layers.3.ca``."""
        return f"{self.stack}.layers.{self.layer}.{self.kind}"

    @property
    def short(self) -> str:
        """Layer and kind alone, such as ``3.ca``; enough inside one stack."""
        return f"{self.layer}.{self.kind}"


def parse(name: str) -> BlockId:
    """Split a block name into (stack, layer, kind).

    Raises:
        ValueError: the name is not of the form ``<stack>.layers.<layer>.<kind>``.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) == 4:
        stack, layers, layer, kind = parts
        # "01" or a non-ASCII digit would not survive the way back to a name, so it is no layer number.
        is_number = len(layer) <= MAX_LAYER_DIGITS and layer.isascii() and layer.isdigit() and str(int(layer)) == layer
        if layers == "layers" and is_number and kind in KINDS.get(stack, ()):
            return BlockId(stack, int(layer), kind)
    raise ValueError(
        f"{short_repr(name)} is not a block name: write 'decoder.layers.<layer>.<sa|ca|ffn>' "
        "or 'encoder.layers.<layer>.<sa|ffn>', for example 'decoder.layers.0.sa'"
    )


def decoder_blocks(n_layer: int) -> tuple[str, ...]:
    """Names of the ``3 * n_layer`` blocks of a decoder, in execution order."""
    return _stack_blocks("decoder", n_layer)


def encoder_blocks(n_layer: int) -> tuple[str, ...]:
    """Names of the ``2 * n_layer`` blocks of an encoder-only denoiser, in execution order."""
    return _stack_blocks("encoder", n_layer)


def _stack_blocks(stack: str, n_layer: int) -> tuple[str, ...]:
    if n_layer < 1:
        raise ValueError(f"a denoiser has at least one layer, got n_layer={n_layer}")
    return tuple(BlockId(stack, i, kind).name for i in range(n_layer) for kind in KINDS[stack])


def is_ffn(name: str) -> bool:
    """Whether the block is a feed-forward network."""
    return parse(name).kind == "ffn"


def execution_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort block names into the order in which a forward pass runs them.

    Raises:
        ValueError: a name is invalid or occurs twice, there is none, or both stacks occur (one denoiser has one).
    """
    names = tuple(names)
    ids = [parse(name) for name in names]
    if not ids:
        raise ValueError("there are no blocks: name at least one, for example decoder_blocks(8)")
    twice = repeated(names)
    if twice:
        raise ValueError(f"block names must be unique, but these occur more than once: {some(twice)}")
    if len({block.stack for block in ids}) > 1:
        raise ValueError("blocks of a decoder and of an encoder are mixed: name the blocks of one denoiser stack")
    ids.sort(key=lambda block: (block.layer, KINDS[block.stack].index(block.kind)))
    return tuple(block.name for block in ids)


def downstream_ffns(name: str, blocks: Sequence[str]) -> tuple[str, ...]:
    """FFNs that a stale value of ``name`` can disturb: BUA's downstream rule.

    The rule: every FFN whose layer index is greater than or equal to the block's own, hence also the FFN of the
    block's own layer; a block is never downstream of itself. The FFNs come back in execution order.

    Raises:
        ValueError: ``name`` is not one of ``blocks``.
    """
    blocks = execution_order(blocks)
    if name not in blocks:
        raise ValueError(f"{name!r} is not among the {len(blocks)} blocks {blocks[0]} ... {blocks[-1]}")
    layer = parse(name).layer
    return tuple(other for other in blocks if is_ffn(other) and parse(other).layer >= layer and other != name)
