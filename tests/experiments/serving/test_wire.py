"""Messages: what openpi's client packs is read, and nothing else than numbers in maps."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from bac_workbench.serving.wire import BadRequest, as_array, packed, unpacked

ARRAYS = [
    np.arange(6, dtype=kind).reshape(2, 3) for kind in ("<f4", ">f4", "<f8", "<f2", "u1", "<i8", ">i2", "<u4")
] + [np.zeros((0, 3), "<f4"), np.array(3.5), np.arange(24.0).reshape(2, 3, 4).T]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str} {array.shape}")
def test_arrays_survive(array):
    got = unpacked(packed({"a": array, "b": {"c": [array]}}))
    for each in (got["a"], got["b"]["c"][0]):
        assert np.array_equal(each, array) and each.dtype == array.dtype.newbyteorder("=") and each.flags.writeable


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str} {array.shape}")
def test_openpis_client_reads_and_writes_the_same(array):
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    content = {"a": array, "n": 3, "t": "text", "s": np.float32(1.5)}
    got = unpacked(theirs.packb(content))
    assert np.array_equal(got["a"], array) and (got["n"], got["t"], got["s"]) == (3, "text", 1.5)
    assert np.array_equal(theirs.unpackb(packed({"a": array}))["a"], array)


def array_of(**changes):
    fields = {"data": b"\0" * 8, "dtype": "<f4", "shape": [2], **changes}
    return msgpack.packb({"a": {b"__ndarray__": True, **{key.encode(): value for key, value in fields.items()}}})


HOSTILE = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "cut": packed({"a": np.zeros(3)})[:-1],
    "two messages": packed({}) * 2,
    "no map": msgpack.packb([1]),
    "a number as key": msgpack.packb({1: 2}),
    "bytes as key": msgpack.packb({b"a": 2}),
    "an extension": msgpack.packb({"a": msgpack.ExtType(1, b"x")}),
    "a list that claims to be long": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "a map that claims to be long": b"\xdf\xff\xff\xff\xff",
    "bytes that claim to be long": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "deep nesting": b"\x81\xa1a" + b"\x91" * 5000 + b"\x01",
    "objects": array_of(dtype="|O"),
    "records": array_of(dtype="V8"),
    "complex numbers": array_of(dtype="<c8"),
    "times": array_of(dtype="<M8[s]"),
    "a type that does not exist": array_of(dtype="<f1"),
    "a type that is a number": array_of(dtype=3),
    "more bytes than numbers": array_of(shape=[1]),
    "more numbers than bytes": array_of(shape=[2**40]),
    "a negative size": array_of(shape=[-2]),
    "no shape": array_of(shape=None),
    "a shape of true": array_of(shape=[True, 2]),
    "many axes": array_of(shape=[1] * 40 + [2]),
    "text instead of bytes": array_of(data="12345678"),
    "a scalar that is text": msgpack.packb({"a": {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}}),
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
def test_what_is_none_is_refused(message):
    with pytest.raises(BadRequest):
        unpacked(message)


def test_lists_of_numbers_are_arrays():
    assert np.array_equal(as_array("a", [[1, 2.5], [3, 4]]), [[1, 2.5], [3, 4]])
    for value in ("text", None, [[1], [1, 2]], ["a"], {"a": 1}, [None], True):
        with pytest.raises(BadRequest, match="a is no array of numbers"):
            as_array("a", value)


def test_only_numbers_are_sent():
    with pytest.raises(TypeError, match="cannot hold a"):
        packed({"a": np.array([object()])})
