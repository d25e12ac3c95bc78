"""The branches of a module in the hands of somebody else: found by name, taken over, and given back.

Whatever computes a branch is a method of a module: `forward`, or one that the module calls itself. An instance of the
module is given an attribute of the same name, which Python finds first; taking it away restores the module exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from bac.blocks import Block
from bac.errors import NoDenoiser, Unavailable

# handler(index of the block, what computes the branch, its arguments) -> the branch output
Handler = Callable[[int, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def site_of(model: nn.Module, block: str) -> tuple[nn.Module, str]:
    """(module, name of its method) that computes a block of this model.

    Raises:
        NoDenoiser: the model has no such module or method.
    """
    if isinstance(block, Block):
        path, _, method = block.partition(":")
        method = method or "forward"
    else:  # decoder.layers.3.ca
        path, _, method = block.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise NoDenoiser(f"{type(model).__name__} has no module {path}, which block {block} is: {error}") from error
    if not callable(getattr(module, method, None)):
        raise NoDenoiser(f"{path} is a {type(module).__name__} without a method {method}(), which block {block} is")
    return module, method


class _Taken:
    """What stands in the place of a method."""

    def __init__(self, handler: Handler, index: int, original: Callable[..., Any]):
        self.handler, self.index, self.original = handler, index, original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.handler(self.index, self.original, args, kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise Unavailable("a model is copied or stored while its branches are cached: leave that `with` block first")


class Takeover:
    """Lets `handler` answer the calls of some methods, until `give_back`.

    Args:
        sites: (module, method name), one per index.

    Raises:
        Unavailable: a method is in somebody else's hands already.
    """

    def __init__(self, sites: Sequence[tuple[nn.Module, str]], handler: Handler):
        self.sites, self.handler = list(sites), handler
        self.before: list[tuple[nn.Module, str, bool, Any]] = []

    def take(self) -> None:
        for module, method in self.sites:
            if isinstance(vars(module).get(method), _Taken):
                raise Unavailable(
                    f"{method}() of {type(module).__name__} is cached already: leave that `with` block first, and name "
                    "no block twice"
                )
        for index, (module, method) in enumerate(self.sites):
            own = method in vars(module)  # somebody replaced it on the instance before
            self.before.append((module, method, own, vars(module).get(method)))
            vars(module)[method] = _Taken(self.handler, index, getattr(module, method))

    def give_back(self) -> None:
        while self.before:
            module, method, own, value = self.before.pop()
            if own:
                vars(module)[method] = value
            else:
                del vars(module)[method]
