"""Mutations of JSON and YAML that keep their grammar, and such that break it where parsers are weak."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from stress.fuzz.damage import NUMBERS, damaged

WORDS = (
    "",
    "abc",
    "NaN",
    "../../x",
    "/",
    "\u0000",
    "${x}",
    "${oc.env:HOME}",
    "é" * 40,
    "x" * 5000,
    "true",
    "1",
    "<f8",
    "|O",
    "zlib",
    "pickle",
    "C",
    "F",
    "float32",
    "int64",
    "<M8[ns]",
    "<U100000000",
    "[['a','<f8']]",
    "decoder.layers.0.sa",
)
FLOATS = (0.5, -0.0, 1e308, -1e308, 5e-324, 1e22, float("nan"), float("inf"), -float("inf"))


def value(rng: Random) -> Any:
    """Something else than what was meant."""
    return rng.choice(
        (
            None,
            True,
            False,
            rng.choice(NUMBERS),
            rng.choice(FLOATS),
            rng.choice(WORDS),
            [],
            {},
            [rng.choice(NUMBERS)] * rng.choice((1, 3, 40)),
            {rng.choice(WORDS): rng.choice(NUMBERS)},
            [[]],
            10 ** rng.choice((19, 400, 4200)),
            rng.random(),
            rng.randrange(-5, 50),
        )
    )


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value below `tree`."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            found.append((node, key))
            waiting.append(child)
    return found


def altered(rng: Random, tree: Any) -> Any:
    """One to three values of a tree replaced, removed, repeated, renamed or moved."""
    holder = [tree]
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes = [*_nodes(holder), (holder, 0)]
        node, key = rng.choice(nodes)
        change = rng.randrange(7)
        if change <= 2:
            node[key] = value(rng)
        elif change == 3 and node is not holder:
            del node[key]
        elif change == 4:
            other, other_key = rng.choice(nodes)
            node[key] = json.loads(json.dumps(other[other_key]))
        elif change == 5 and isinstance(node, dict):
            node[rng.choice((*WORDS, f"{key}x", str(key).upper()))] = node.pop(key)
        elif isinstance(node, list) and node is not holder:
            node[key:key] = [node[key]] * rng.choice((1, 2, 300))
        elif isinstance(node[key], (int, float)) and not isinstance(node[key], bool):
            node[key] = node[key] + rng.choice((-1, 1, 1000)) if isinstance(node[key], int) else node[key] * 1.5
    return holder[0]


def of_json(rng: Random, content: bytes) -> bytes:
    """JSON, or JSON lines, with other values; a quarter of them with damaged bytes."""
    if rng.random() < 0.25:
        return damaged(rng, content)
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    full = [index for index, line in enumerate(lines) if line.strip()]
    if not full:
        return damaged(rng, content)
    index = rng.choice(full)
    if len(full) > 1 and rng.random() < 0.3:
        other = rng.choice(full)
        lines[index] = lines[other] if rng.random() < 0.5 else lines[index] + lines[other]
        return b"\n".join(lines)
    try:
        lines[index] = json.dumps(altered(rng, json.loads(lines[index]))).encode()
    except (ValueError, RecursionError):
        return damaged(rng, content)
    text = b"\n".join(lines)
    return rng.choice(JSON_TRICKS)(rng, text) if rng.random() < 0.15 else text


def _deep(rng: Random, text: bytes) -> bytes:
    depth = rng.choice((100, 990, 5_000, 100_000))
    return b"[" * depth + text + b"]" * depth


def _repeated_key(rng: Random, text: bytes) -> bytes:
    return text.replace(
        b"{", b'{"' + rng.choice((b"shape", b"steps", b"a")) + b'": ' + rng.choice((b"1", b"[]", b"null")) + b", ", 1
    )


def _huge_number(rng: Random, text: bytes) -> bytes:
    digits = [index for index, byte in enumerate(text) if 48 <= byte <= 57]
    if not digits:
        return text
    at = rng.choice(digits)
    return text[:at] + rng.choice((b"9" * 4400, b"1e999", b"-", b"1e", b"0x10", b"1_0", b"00")) + text[at + 1 :]


def _marked(rng: Random, text: bytes) -> bytes:
    return rng.choice(
        (b"\xef\xbb\xbf" + text, text.decode("latin1").encode("utf-16"), text + b"\x00", text + text, b"\xff" + text)
    )


JSON_TRICKS: tuple[Callable[[Random, bytes], bytes], ...] = (_deep, _repeated_key, _huge_number, _marked)


def of_yaml(rng: Random, content: bytes) -> bytes:
    """Lines with other values, in other places, with anchors, tags and merges; a quarter with damaged bytes."""
    if rng.random() < 0.25:
        return damaged(rng, content)
    lines = content.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        line = lines[at]
        key, colon, _ = line.partition(b":")
        change = rng.randrange(8)
        if change <= 2 and colon:
            lines[at] = key + b": " + json.dumps(value(rng)).encode()
        elif change == 3:
            del lines[at]
            lines = lines or [b""]
        elif change == 4:
            lines.insert(at, rng.choice(lines))
        elif change == 5:
            lines[at] = rng.choice((b"  ", b"\t", b"- ", b"? ", b"& ")) + line
        elif change == 6 and colon:
            lines[at] = key + b": " + rng.choice(YAML_WORDS)
        else:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return b"\n".join(lines)


YAML_WORDS = (
    b"&a [*a]",
    b"*a",
    b"!!python/object/apply:os.system ['true']",
    b"!!binary aGk=",
    b"${policy}",
    b"${eval:'2**2**9'}",
    b"${oc.env:HOME}",
    b"${policy.horizon}",
    b"!!set {a, b}",
    b"!!timestamp 2001-01-01",
    b"|\n  x",
    b"'${' ",
    b"{a: {a: {a: 1}}}",
    b".nan",
    b"0o17",
    b"1:59:59",
    b"!!float 'x'",
    b"${",
    b"[[[[[[[[[[",
    b"@x",
    b"<<: *a",
)
