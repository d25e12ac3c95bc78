"""Names of blocks: parsed, ordered, and which FFNs lie downstream."""

import pytest

from bac.blocks import (
    BlockId,
    decoder_blocks,
    downstream_ffns,
    encoder_blocks,
    execution_order,
    is_ffn,
    parse,
)


def test_block_names_are_in_execution_order():
    assert decoder_blocks(2) == (
        "decoder.layers.0.sa",
        "decoder.layers.0.ca",
        "decoder.layers.0.ffn",
        "decoder.layers.1.sa",
        "decoder.layers.1.ca",
        "decoder.layers.1.ffn",
    )
    assert encoder_blocks(1) == ("encoder.layers.0.sa", "encoder.layers.0.ffn")
    many = decoder_blocks(12)  # layer 10 comes after layer 9, not after layer 1
    assert execution_order(reversed(many)) == many


def test_parse_round_trips_and_knows_ffns():
    assert parse("decoder.layers.11.ca") == BlockId("decoder", 11, "ca")
    for name in decoder_blocks(11) + encoder_blocks(3):
        assert parse(name).name == name
        assert is_ffn(name) == name.endswith(".ffn")


@pytest.mark.parametrize(
    "name",
    ["", "decoder.layers.0", "decoder.layers.01.sa", "decoder.layers.-1.sa", "decoder.layers.x.sa",
     "decoder.layers.².sa", "encoder.layers.0.ca", "decoder.layer.0.sa", "model.decoder.layers.0.sa",
     "decoder.layers.0.mlp", None, 3],
)  # fmt: skip
def test_bad_block_names_are_refused(name):
    with pytest.raises(ValueError, match="is not a block name: write"):
        parse(name)


def test_execution_order_refuses_what_one_denoiser_cannot_have():
    with pytest.raises(ValueError, match="no blocks"):
        execution_order([])
    with pytest.raises(ValueError, match="more than once: decoder.layers.0.sa"):
        execution_order(["decoder.layers.0.sa"] * 2)
    with pytest.raises(ValueError, match="mixed"):
        execution_order(["decoder.layers.0.sa", "encoder.layers.0.sa"])
    with pytest.raises(ValueError, match="n_layer=0"):
        decoder_blocks(0)


def test_downstream_rule():
    blocks = decoder_blocks(3)
    ffns = tuple(f"decoder.layers.{i}.ffn" for i in range(3))
    assert downstream_ffns("decoder.layers.0.sa", blocks) == ffns
    assert downstream_ffns("decoder.layers.1.ca", blocks) == ffns[1:]  # its own layer's FFN is included
    assert downstream_ffns("decoder.layers.1.ffn", blocks) == ffns[2:]  # itself is not
    assert downstream_ffns("decoder.layers.2.ffn", blocks) == ()
    with pytest.raises(ValueError, match="not among the 9 blocks"):
        downstream_ffns("decoder.layers.7.sa", blocks)
