"""Runs a pickle's instructions with our own stand-ins and within limits.

Python's unpickler trusts its input in ways that no table of names mends: it hashes tuples nested so deeply that the
interpreter ends, reserves memory for an index it is told, and calls as often as it is asked. This one keeps count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diffusion_policy.common.config import CheckpointError
from diffusion_policy.common.pickle_budget import Budget
from diffusion_policy.common.pickle_names import ALLOWED, only_a_class
from diffusion_policy.common.pickle_reader import PickleReader
from diffusion_policy.common.pickle_standins import (
    Function,
    Inert,
    Placeholder,
    PlainDict,
    TypeName,
    placeholder,
    printable,
    refused,
)


class PickleMachine:
    """One pickle being read.

    Raises (`run`):
        CheckpointError: a name is refused, or a limit is exceeded.
        Exception: of any other kind; the bytes are damaged.
    """

    def __init__(self, data: bytes, budget: Budget):
        self._reader, self._budget = PickleReader(data), budget
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._done = 0
        self._classes: dict[tuple[str, str], type[Placeholder]] = {}
        budget.copies += len(data)

    def run(self) -> Any:
        opcode, operations = self._reader.opcode, self._operations()
        limit = self._budget.operations
        try:
            while True:
                code = opcode()
                self._done += 1
                if self._done > limit:
                    raise CheckpointError(f"it needs more than {limit} steps to be read: it is no policy checkpoint")
                if code == 0x2E:  # STOP
                    return self._stack.pop()
                operations[code]()
        finally:
            self._budget.operations -= self._done

    # ---- names, calls, objects ----
    def _find(self, module: Any, name: Any) -> Any:
        # An exact look-up: a dotted name such as ("os", "path.join") is one more name that is not in the table.
        if not isinstance(module, str) or not isinstance(name, str):
            raise refused(module, name)
        target = ALLOWED.get((module, name))
        if target is None:
            target = self._classes.get((module, name))
        if target is None:
            if not only_a_class(module, name):
                raise refused(module, name)
            self._budget.classes -= 1
            if self._budget.classes < 0:
                raise CheckpointError("it holds objects of too many classes: it is no policy checkpoint")
            target = self._classes[module, name] = placeholder(module, name)
            self._budget.skipped[target.foreign] = None
        return target

    def _call(self, function: Any, arguments: Any) -> Any:
        if type(arguments) is not tuple:
            raise ValueError("a call without a tuple of arguments")
        if isinstance(function, (Function, TypeName)):
            return function.call(self._budget, arguments)
        if isinstance(function, type) and issubclass(function, (Inert, PlainDict)):
            return function.make(self._budget, arguments)
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
                f"the file refers to an unknown outside object {printable(kind)!r}: it is not a policy checkpoint"
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
        check = self._budget.check_key
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
            self._budget.check_key(item)
            target.add(item)

    def _frozen(self, items: list[Any]) -> frozenset:
        for item in items:
            self._budget.check_key(item)
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
        read, pop_mark = self._reader, self._pop_mark

        def push(make: Callable[[], Any]) -> Callable[[], None]:
            def operation() -> None:
                value = make()  # first: it may take another stack's place
                self._stack.append(value)

            return operation

        def pop() -> Any:
            return self._stack.pop()

        def text(form: str) -> Callable[[], None]:
            return push(lambda: read.text(form))

        def raw(form: str) -> Callable[[], None]:
            return push(lambda: read.take(read.number(form)))

        def byte_string(form: str) -> Callable[[], None]:
            return push(lambda: read.take(read.number(form)).decode("ascii"))  # of Python 2

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
            module, name = read.line().decode("ascii"), read.line().decode("ascii")
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

        named = {
            b"(": self._push_mark,
            b"0": self._pop,
            b"1": pop_mark,
            b"2": push(lambda: self._stack[-1]),
            b"F": push(lambda: float(read.line())),
            b"I": push(read.plain_integer),
            b"J": push(lambda: read.number("<i")),
            b"K": push(lambda: read.number("<B")),
            b"L": push(read.long_integer),
            b"M": push(lambda: read.number("<H")),
            b"N": lambda: self._stack.append(None),
            b"P": push(lambda: self._outside(read.line().decode("ascii"))),
            b"Q": push(lambda: self._outside(pop())),
            b"R": swapped(self._call),
            b"S": push(read.quoted),
            b"T": byte_string("<i"),
            b"U": byte_string("<B"),
            b"V": push(lambda: str(read.line(), "raw-unicode-escape")),
            b"X": text("<I"),
            b"a": lambda: self._extend([pop()]),
            b"b": self._build,
            b"c": push(lambda: self._find(read.line().decode("utf-8"), read.line().decode("utf-8"))),
            b"d": push(lambda: self._dict(pop_mark())),
            b"}": lambda: self._stack.append({}),
            b"e": lambda: self._extend(pop_mark()),
            b"g": push(lambda: self._memo[read.integer(read.line())]),
            b"h": push(lambda: self._memo[read.number("<B")]),
            b"j": push(lambda: self._memo[read.number("<I")]),
            b"i": push(instance),
            b"l": push(pop_mark),
            b"]": lambda: self._stack.append([]),
            b"o": push(instance_of_stacked),
            b"p": lambda: self._put(read.integer(read.line())),
            b"q": lambda: self._put(read.number("<B")),
            b"r": lambda: self._put(read.number("<I")),
            b"s": set_one,
            b"t": push(lambda: tuple(pop_mark())),
            b")": lambda: self._stack.append(()),
            b"u": set_many,
            b"G": push(lambda: read.number(">d")),
            b"\x80": read.protocol,
            b"\x81": swapped(self._new),
            b"\x85": lambda: self._tuple(1),
            b"\x86": lambda: self._tuple(2),
            b"\x87": lambda: self._tuple(3),
            b"\x88": lambda: self._stack.append(True),
            b"\x89": lambda: self._stack.append(False),
            b"\x8a": push(lambda: read.long(read.number("<B"))),
            b"\x8b": push(lambda: read.long(read.number("<i"))),
            b"B": raw("<I"),
            b"C": raw("<B"),
            b"\x8c": text("<B"),
            b"\x8d": text("<Q"),
            b"\x8e": raw("<Q"),
            b"\x8f": lambda: self._stack.append(set()),
            b"\x90": lambda: self._add(pop_mark()),
            b"\x91": push(lambda: self._frozen(pop_mark())),
            b"\x92": push(new_with_keywords),
            b"\x93": push(stacked_name),
            b"\x94": lambda: self._memo.__setitem__(len(self._memo), self._stack[-1]),
            b"\x95": read.frame,
            b"\x96": raw("<Q"),
        }
        return {code[0]: operation for code, operation in named.items()}
