"""How operators are defined by others, down to those at which a decomposition stops."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.fx.record import Recording, record
from penstock.compiler.rewrite.decompositions import DECOMPOSITIONS, of_prims
from penstock.compiler.rewrite.remove_no_ops import ASSERTIONS


@cache
def _tables() -> tuple[Mapping[Any, Callable[..., Any]], ...]:
    core = torch._decomp._core_aten_decompositions_post_autograd()
    return (core, torch._decomp.decomposition_table, of_prims())


def definition(target: torch._ops.OpOverload) -> Callable[..., Any] | None:
    """How to compute ``target`` from other operators: as Penstock says, else as its own definition
    does, else as the core ATen set, else by whatever PyTorch has."""
    if target in DECOMPOSITIONS:
        return DECOMPOSITIONS[target]
    if target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return target.decompose
    return next((table[target] for table in _tables() if target in table), None)


def _nothing(*_: Any, **__: Any) -> None:
    return None


class Definitions(Mapping[Any, Callable[..., Any]]):
    """The definitions of all operators but those that ``stops`` is true of; assertions come to
    nothing, so that what only they read is not needed. Asked of few, hence not worked out for
    all."""

    def __init__(self, stops: Callable[[torch._ops.OpOverload], bool]) -> None:
        self._stops = stops
        self._found: dict[Any, Callable[..., Any] | None] = {}

    def _find(self, target: Any) -> Callable[..., Any] | None:
        if target in ASSERTIONS:
            return _nothing
        if target not in self._found:
            self._found[target] = None if self._stops(target) else definition(target)
        return self._found[target]

    def __getitem__(self, target: Any) -> Callable[..., Any]:
        function = self._find(target)
        if function is None:
            raise KeyError(target)
        return function

    def __contains__(self, target: object) -> bool:
        return self._find(target) is not None

    def __iter__(self) -> Iterator[Any]:
        known = dict.fromkeys(target for table in (DECOMPOSITIONS, *_tables()) for target in table)
        return (t for t in known if isinstance(t, torch._ops.OpOverload) and t in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def tensor_inputs(node: Node) -> list[Node]:
    return [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]


def recorded(node: Node, function: Callable[..., Any], definitions: Definitions) -> Recording:
    """What ``function`` (the node's target, or another way to compute that) comes to for the node's
    arguments, in operators at which ``definitions`` stops; of several results, for those that are
    read. Raises whatever the definitions do. To be called within the graph's fake mode."""
    sources = tensor_inputs(node)
    position = {source: number for number, source in enumerate(sources)}
    read = {user.args[1] for user in node.users if user.target is operator.getitem}

    def call(*tensors: Any) -> Any:
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs),
            lambda item: tensors[position[item]] if item in position else item.meta["val"],
        )
        result = function(*args, **kwargs)
        if not isinstance(result, (tuple, list)):
            return result
        return [one if number in read else None for number, one in enumerate(result)]

    return record(call, [source.meta["val"] for source in sources], definitions)
