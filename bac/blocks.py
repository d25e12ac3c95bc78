"""Names of the cacheable blocks of a Transformer Diffusion Policy, and of any other transformer denoiser.

A *block* is one residual branch of one transformer layer, ``x <- x + block(norm(x), ...)``, and is the unit
BAC caches (arXiv 2506.13456). In a Transformer Diffusion Policy its name says where it sits: ``decoder.layers.3.ca``
is the cross-attention of decoder layer 3. Blocks run layer by layer; inside a layer the order is

* decoder layer: self-attention ``sa``, cross-attention ``ca``, feed-forward ``ffn``;
* encoder layer (the encoder-only, BERT-style denoiser): ``sa``, ``ffn``.

The blocks of other models are `Block`: names of any form that say themselves what kind and layer they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from bac.strict_json import repeated, short_repr, some

MAX_LAYER_DIGITS = 6  # far above any model; int() of a long text is slow
MAX_NAME = 200  # characters of a `Block`

#: Kinds of block in one layer of each stack, in execution order; `model` stands for all that is not of this form.
KINDS: dict[str, tuple[str, ...]] = {
    "decoder": ("sa", "ca", "ffn"),
    "encoder": ("sa", "ffn"),
    "model": ("sa", "ca", "ffn", "other"),
}

#: What the kinds are called in figures and tables.
KIND_TITLES: dict[str, str] = {
    "sa": "self-attention",
    "ca": "cross-attention",
    "ffn": "feed-forward",
    "other": "other branches",
}


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


class Block(str):
    """A residual branch of any transformer: a name, and what is known of the branch.

    It is a string, so it stands wherever a block name does: as a column of a schedule, as a key of similarity matrices.
    Where branches of a module are to be cached (`bac.cache`), the name is the place of what computes the branch:
    ``blocks.3.attn`` the module of that path, whose output is the branch's, ``layers.3:_sa_block`` a method.

    Attributes:
        kind: ``sa``, ``ca``, ``ffn`` or ``other``. BUA repairs the blocks before an ``ffn``.
        layer: index of the layer; blocks of one kind are of different layers.

    Raises:
        ValueError: the name has other characters than letters, digits and ``._:-``, or kind or layer are not possible.
    """

    stack: ClassVar[str] = "model"
    kind: str
    layer: int

    def __new__(cls, name: str, kind: str = "other", layer: int = 0) -> Block:
        if not isinstance(name, str) or len(name) > MAX_NAME or not re.fullmatch(r"[A-Za-z0-9_.:\-]+", name):
            raise ValueError(
                f"{short_repr(name)} cannot name a block: use letters, digits and ._:-, at most {MAX_NAME} of them"
            )
        if kind not in KINDS["model"]:
            raise ValueError(f"block {name} is of kind {short_repr(kind)}: use {', '.join(KINDS['model'])}")
        if type(layer) is not int or not 0 <= layer < 10**MAX_LAYER_DIGITS:
            raise ValueError(f"block {name} is of layer {short_repr(layer)}: use a whole number from 0 on")
        block = super().__new__(cls, name)
        block.kind, block.layer = kind, layer
        return block

    def __getnewargs__(self) -> tuple[str, str, int]:  # type: ignore[override]  # what copies are made of
        return str(self), self.kind, self.layer

    @property
    def name(self) -> str:
        """The name alone."""
        return self

    @property
    def short(self) -> str:
        """Layer and kind, such as ``3.ca``."""
        return f"{self.layer}.{self.kind}"


def parse(name: str) -> BlockId | Block:
    """Split a block name into (stack, layer, kind); a `Block` knows them.

    Raises:
        ValueError: the name is not of the form ``<stack>.layers.<layer>.<kind>``.
    """
    if isinstance(name, Block):
        return name
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) == 4:
        stack, layers, layer, kind = parts
        # "01" or a non-ASCII digit would not survive the way back to a name, so it is no layer number.
        is_number = len(layer) <= MAX_LAYER_DIGITS and layer.isascii() and layer.isdigit() and str(int(layer)) == layer
        if layers == "layers" and is_number and stack in ("decoder", "encoder") and kind in KINDS[stack]:
            return BlockId(stack, int(layer), kind)
    raise ValueError(
        f"{short_repr(name)} is not a block name: write 'decoder.layers.<layer>.<sa|ca|ffn>' "
        "or 'encoder.layers.<layer>.<sa|ffn>', for example 'decoder.layers.0.sa'; "
        "for branches of another model use bac.blocks.Block(name, kind, layer)"
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
    """Sort block names into the order in which a forward pass runs them; `Block`s come in that order already.

    Raises:
        ValueError: a name is invalid or occurs twice, there is none, both stacks occur (one denoiser has one), or two
            `Block`s are of the same kind and layer.
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
    if ids[0].stack == Block.stack:
        alike = repeated([block.short for block in ids])
        if alike:
            raise ValueError(f"blocks of one kind must be of different layers, but these are not: {some(alike)}")
        return names
    ids.sort(key=lambda block: (block.layer, KINDS[block.stack].index(block.kind)))
    return tuple(block.name for block in ids)


def downstream_ffns(name: str, blocks: Sequence[str]) -> tuple[str, ...]:
    """FFNs that a stale value of ``name`` can disturb: BUA's downstream rule.

    The rule: every FFN that runs after the block. In a Transformer Diffusion Policy these are the FFNs whose layer
    index is greater than or equal to the block's own, hence also the FFN of the block's own layer; a block is never
    downstream of itself. The FFNs come back in execution order.

    Raises:
        ValueError: ``name`` is not one of ``blocks``.
    """
    blocks = execution_order(blocks)
    if name not in blocks:
        raise ValueError(f"{name!r} is not among the {len(blocks)} blocks {blocks[0]} ... {blocks[-1]}")
    return tuple(other for other in blocks[blocks.index(name) + 1 :] if is_ffn(other))


def described_blocks(blocks: Sequence[str]) -> list[list[str | int]] | None:
    """`Block`s as JSON values, for a stored file; None: the names say all."""
    known = [block for block in blocks if isinstance(block, Block)]
    return [[str(block), block.kind, block.layer] for block in known] or None


def blocks_of(described: object) -> tuple[Block, ...]:
    """Inverse of `described_blocks`.

    Raises:
        ValueError: it is no such list.
    """
    if not isinstance(described, list) or not all(isinstance(item, list) and len(item) == 3 for item in described):
        raise ValueError(f"'blocks' must be a list of [name, kind, layer], got {short_repr(described)}")
    return tuple(Block(*item) for item in described)
