"""Runs a pickle's instructions with our own stand-ins and within limits.

Python's unpickler trusts its input in ways that no table of names mends: it hashes tuples nested so deeply that the
interpreter ends, reserves memory for an index it is told, and calls as often as it is asked. This one keeps count.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.pickle_names import ALLOWED, only_a_class
from diffusion_policy.common.pickle_standins import (
    Function,
    Inert,
    Placeholder,
    PlainDict,
    TypeName,
    placeholder,
    refused,
    shown,
)

MAX_BYTES = 64 * 2**20  # of one pickle; tensors lie beside it
_MAX_INTEGER = 128  # bytes of a whole number
_MAX_KEY = 2**60  # larger whole numbers can be made to have one and the same hash
_MAX_KEY_PARTS, _MAX_KEY_DEPTH = 16, 4


@dataclass
class Budget:
    """What all pickles of one file may do together: many times what sound checkpoints do."""

    operations: int = 1_000_000
    copies: int = 0  # elements and bytes that calls make; a pickle adds its own length
    composite_keys: int = 1_000
    classes: int = 200
    skipped: dict[str, None] = field(default_factory=dict)  # names of classes that placeholders stand for, in order


class PickleMachine:
    """One pickle being read.

    Raises (`run`):
        CheckpointError: a name is refused, or a limit is exceeded.
        Exception: of any other kind; the bytes are damaged.
    """

    def __init__(self, data: bytes, budget: Budget):
        self._data, self._at, self._budget = data, 0, budget
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._done = 0
        self._classes: dict[tuple[str, str], type[Placeholder]] = {}
        if len(data) > MAX_BYTES:
            raise CheckpointError(
                f"it has {len(data)} bytes beside its tensors; a policy checkpoint has less than {MAX_BYTES}"
            )
        budget.copies += len(data)

    def run(self) -> Any:
        data, operations = self._data, self._operations()
        limit = self._budget.operations
        try:
            while True:
                code = data[self._at]
                self._at += 1
                self._done += 1
                if self._done > limit:
                    raise CheckpointError(f"it needs more than {limit} steps to be read: it is no policy checkpoint")
                if code == 0x2E:  # STOP
                    return self._stack.pop()
                operations[code]()
        finally:
            self._budget.operations -= self._done

    # ---- what stand-ins ask for ----
    def spend(self, copies: int) -> None:
        self._budget.copies -= copies
        if self._budget.copies < 0:
            raise CheckpointError("it unfolds to many times its size: it is no policy checkpoint")

    def check_key(self, key: Any, depth: int = 0) -> None:
        kind = type(key)
        if kind is str or key is None or kind in (bool, float, bytes) or kind in (type, TypeName, torch.dtype):
            return
        if kind is int and -_MAX_KEY < key < _MAX_KEY:
            return
        if isinstance(key, Inert):
            return  # by identity
        if kind in (tuple, frozenset) and len(key) <= _MAX_KEY_PARTS and depth < _MAX_KEY_DEPTH:
            self._budget.composite_keys -= 1
            if self._budget.composite_keys < 0:
                raise CheckpointError("it has too many keys that are tuples: it is no policy checkpoint")
            for part in key:
                self.check_key(part, depth + 1)
            return
        raise CheckpointError(f"it uses a {kind.__name__} as a key, of a form that no policy checkpoint needs")

    # ---- reading ----
    def _take(self, size: int) -> bytes:
        start, end = self._at, self._at + size
        if not start <= end <= len(self._data):
            raise ValueError("it ends too early")
        self._at = end
        return self._data[start:end]

    def _number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value

    def _line(self) -> bytes:
        end = self._data.index(b"\n", self._at)
        line, self._at = self._data[self._at : end], end + 1
        return line

    def _integer(self, text: bytes) -> int:
        if len(text) > 3 * _MAX_INTEGER:
            raise CheckpointError("it holds a number of too many digits: it is no policy checkpoint")
        return int(text)

    def _long(self, size: int) -> int:
        if not 0 <= size <= _MAX_INTEGER:
            raise CheckpointError(f"it holds a number of {size} bytes: it is no policy checkpoint")
        return int.from_bytes(self._take(size), "little", signed=True)

    # ---- names, calls, objects ----
    def _find(self, module: Any, name: Any) -> Any:
        # An exact look-up: a dotted name such as ("os", "path.join") is one more name that is not in the table.
        if not isinstance(module, str) or not isinstance(name, str):
            raise refused(module, name)
        found = ALLOWED.get((module, name))
        if found is None:
            found = self._classes.get((module, name))
        if found is None:
            if not only_a_class(module, name):
                raise refused(module, name)
            self._budget.classes -= 1
            if self._budget.classes < 0:
                raise CheckpointError("it holds objects of too many classes: it is no policy checkpoint")
            found = self._classes[module, name] = placeholder(module, name)
            self._budget.skipped[found.foreign] = None
        return found

    def _call(self, function: Any, arguments: Any) -> Any:
        if type(arguments) is not tuple:
            raise ValueError("a call without a tuple of arguments")
        if isinstance(function, (Function, TypeName)):
            return function.call(self, arguments)
        if isinstance(function, type) and issubclass(function, (Inert, PlainDict)):
            return function.make(self, arguments)
        raise ValueError("a call of what is no function")

    def _new(self, cls: Any, arguments: Any) -> Any:
        if not isinstance(cls, type):
            raise ValueError("a new object of what is no class")
        return self._call(cls, arguments)

    def _outside(self, pid: Any) -> tuple[Any, torch.dtype, Any]:
        """('storage', dtype, key, device, number of elements) -> (key, dtype, number of elements)"""
        kind, dtype, key, _, size = pid if type(pid) is tuple else (pid, None, None, None, None)
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise CheckpointError(
                f"the file refers to an unknown outside object {shown(kind)!r}: it is not a policy checkpoint"
            )
        return key, dtype, size

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif not isinstance(target, PlainDict):
            name = target.__name__ if isinstance(target, type) else type(target).__name__
            raise CheckpointError(f"the file tries to alter a {name}: it is not a policy checkpoint; do not use it")

    # ---- containers ----
    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _push_mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _put(self, index: int) -> None:
        if not 0 <= index <= self._done:
            raise CheckpointError(
                f"it numbers an object {index}, which no writer of so few objects does: it is damaged"
            )
        self._memo[index] = self._stack[-1]

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise ValueError("items of what is no list")

    def _set(self, target: Any, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a key without a value")
        if isinstance(target, Placeholder):
            return
        if not isinstance(target, dict):
            raise ValueError("entries of what is no dict")
        check = self.check_key
        for i in range(0, len(items), 2):
            key = items[i]
            if type(key) is not str:
                check(key)
            target[key] = items[i + 1]

    def _add(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not set:
            if isinstance(target, Placeholder):
                return
            raise ValueError("members of what is no set")
        for item in items:
            self.check_key(item)
            target.add(item)

    def _frozen(self, items: list[Any]) -> frozenset:
        for item in items:
            self.check_key(item)
        return frozenset(items)

    def _dict(self, items: list[Any]) -> dict:
        result: dict = {}
        self._set(result, items)
        return result

    def _tuple(self, size: int) -> None:
        if len(self._stack) < size:
            raise ValueError("a tuple of too few items")
        self._stack[-size:] = [tuple(self._stack[-size:])]

    def _operations(self) -> dict[int, Callable[[], Any]]:
        """Opcode -> what it does. Opcodes that are missing (extension registry, buffers outside) are not accepted."""
        take, number, line, pop_mark = self._take, self._number, self._line, self._pop_mark

        def push(make: Callable[[], Any]) -> Callable[[], None]:
            def operation() -> None:
                value = make()  # first: it may take another stack's place
                self._stack.append(value)

            return operation

        def pop() -> Any:
            return self._stack.pop()

        def text(form: str) -> Callable[[], None]:
            return lambda: self._stack.append(str(take(number(form)), "utf-8", "surrogatepass"))

        def raw(form: str) -> Callable[[], None]:
            return lambda: self._stack.append(take(number(form)))

        def byte_string(data: bytes) -> str:
            return data.decode("ascii")  # of Python 2

        def quoted() -> str:
            data = line().strip()
            if len(data) < 2 or data[:1] != data[-1:] or data[:1] not in b"\"'":
                raise ValueError("a text without quotes")
            return byte_string(codecs.escape_decode(data[1:-1])[0])

        def plain_integer() -> Any:
            data = line()
            return {b"00": False, b"01": True}[data] if data in (b"00", b"01") else self._integer(data)

        def long_integer() -> int:
            return self._integer(line().rstrip(b"L"))

        def memo(index: int) -> Any:
            return self._memo[index]

        def swapped(make: Callable[[Any, Any], Any]) -> Callable[[], None]:
            def operation() -> None:
                last = self._stack.pop()
                self._stack[-1] = make(self._stack[-1], last)

            return operation

        def set_one() -> None:
            value, key = pop(), pop()
            self._set(self._stack[-1], [key, value])

        def set_many() -> None:
            items = pop_mark()
            self._set(self._stack[-1], items)

        def instance() -> Any:
            module, name = line().decode("ascii"), line().decode("ascii")
            return self._call(self._find(module, name), tuple(pop_mark()))

        def instance_of_stacked() -> Any:
            items = pop_mark()
            return self._call(items[0], tuple(items[1:]))

        def new_with_keywords() -> Any:
            keywords, arguments, cls = pop(), pop(), pop()
            if not isinstance(keywords, dict):
                raise ValueError("keywords that are no dict")
            return self._new(cls, arguments)

        def stacked_name() -> Any:
            name, module = pop(), pop()
            return self._find(module, name)

        def append_many() -> None:
            self._extend(pop_mark())

        def add_many() -> None:
            self._add(pop_mark())

        named = {
            b"(": self._push_mark,
            b"0": self._pop,
            b"1": pop_mark,
            b"2": push(lambda: self._stack[-1]),
            b"F": push(lambda: float(line())),
            b"I": push(plain_integer),
            b"J": push(lambda: number("<i")),
            b"K": push(lambda: number("<B")),
            b"L": push(long_integer),
            b"M": push(lambda: number("<H")),
            b"N": lambda: self._stack.append(None),
            b"P": push(lambda: self._outside(line().decode("ascii"))),
            b"Q": push(lambda: self._outside(pop())),
            b"R": swapped(self._call),
            b"S": push(quoted),
            b"T": push(lambda: byte_string(take(number("<i")))),
            b"U": push(lambda: byte_string(take(number("<B")))),
            b"V": push(lambda: str(line(), "raw-unicode-escape")),
            b"X": text("<I"),
            b"a": lambda: self._extend([pop()]),
            b"b": self._build,
            b"c": push(lambda: self._find(line().decode("utf-8"), line().decode("utf-8"))),
            b"d": push(lambda: self._dict(pop_mark())),
            b"}": lambda: self._stack.append({}),
            b"e": append_many,
            b"g": push(lambda: memo(self._integer(line()))),
            b"h": push(lambda: memo(number("<B"))),
            b"j": push(lambda: memo(number("<I"))),
            b"i": push(instance),
            b"l": push(pop_mark),
            b"]": lambda: self._stack.append([]),
            b"o": push(instance_of_stacked),
            b"p": lambda: self._put(self._integer(line())),
            b"q": lambda: self._put(number("<B")),
            b"r": lambda: self._put(number("<I")),
            b"s": set_one,
            b"t": push(lambda: tuple(pop_mark())),
            b")": lambda: self._stack.append(()),
            b"u": set_many,
            b"G": push(lambda: number(">d")),
            b"\x80": lambda: self._protocol(number("<B")),
            b"\x81": swapped(self._new),
            b"\x85": lambda: self._tuple(1),
            b"\x86": lambda: self._tuple(2),
            b"\x87": lambda: self._tuple(3),
            b"\x88": lambda: self._stack.append(True),
            b"\x89": lambda: self._stack.append(False),
            b"\x8a": push(lambda: self._long(number("<B"))),
            b"\x8b": push(lambda: self._long(number("<i"))),
            b"B": raw("<I"),
            b"C": raw("<B"),
            b"\x8c": text("<B"),
            b"\x8d": text("<Q"),
            b"\x8e": raw("<Q"),
            b"\x8f": lambda: self._stack.append(set()),
            b"\x90": add_many,
            b"\x91": push(lambda: self._frozen(pop_mark())),
            b"\x92": push(new_with_keywords),
            b"\x93": push(stacked_name),
            b"\x94": lambda: self._memo.__setitem__(len(self._memo), self._stack[-1]),
            b"\x95": lambda: self._frame(number("<Q")),
            b"\x96": raw("<Q"),
        }
        return {code[0]: operation for code, operation in named.items()}

    def _protocol(self, version: int) -> None:
        if version > 5:
            raise ValueError(f"pickle protocol {version} is unknown")

    def _frame(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise ValueError("it ends too early")
