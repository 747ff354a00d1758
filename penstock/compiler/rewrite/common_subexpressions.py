"""Common subexpression elimination."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.marks import STATE, STORES
from penstock.compiler.fx.writes import is_write, written_by

#: Stands for a node's operator and arguments; equal for equal results, but for what constants hold.
_Key: TypeAlias = tuple[Any, ...]

_RANDOM = torch.Tag.nondeterministic_seeded
#: Tensors whose memory is what they hold.
_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


def apply(module: GraphModule) -> int:
    """Given two calls of one operator with the same arguments → Result: the first one, for the
    readers of both: what each layer computes anew (a mask of the length, its rows of a table of
    positions) stands once. Constants are the same if they hold the same. Random numbers are drawn
    each time; what the program changes is no constant."""
    variable = _variable(module)
    if variable is None:
        return 0
    constants = _Constants(module, variable)
    seen: dict[_Key, list[Node]] = {}
    changes = 0
    for node in list(module.graph.nodes):
        if not _is_pure(node):
            continue
        first = seen.setdefault(constants.key((node.target, node.args, node.kwargs)), [])
        same = next((other for other in first if constants.same_arguments(other, node)), None)
        if same is None:
            first.append(node)
            continue
        node.replace_all_uses_with(same)
        module.graph.erase_node(node)
        changes += 1
    return changes


def _is_pure(node: Node) -> bool:
    if node.op != "call_function":
        return False
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__module__", None) == "_operator"
    return target.namespace == "aten" and not is_write(node) and _RANDOM not in target.tags


def _variable(module: GraphModule) -> set[str] | None:
    """Names of the buffers that are written to when all else is done; none where values change
    before that."""
    names: set[str] = set()
    for node in module.graph.nodes:
        if not is_write(node):
            continue
        for target in written_by(node):
            if target.op == "call_function" and target.target is not STATE:
                return None
            names.add(str(target.args[0] if target.target is STATE else target.target))
        if node.target not in STORES:
            return None
    return names


class _Constants:
    """Arguments of which constants may have different names."""

    def __init__(self, module: GraphModule, variable: set[str]) -> None:
        self._module = module
        self._variable = variable
        self._same: dict[tuple[str, str], bool] = {}

    def key(self, item: Any) -> _Key:
        if isinstance(item, (list, tuple)):
            return (list, *map(self.key, item))
        if isinstance(item, dict):
            return (dict, *((name, self.key(item[name])) for name in sorted(item)))
        if isinstance(item, slice):
            return (slice, *map(self.key, (item.start, item.stop, item.step)))
        if self._is_constant(item):
            value = attribute(self._module, str(item.target))
            return (torch.Tensor, value.dtype, tuple(value.shape), value.stride())
        if isinstance(item, (float, complex)):
            return (type(item), repr(item))  # minus zero is not zero, and NaN is itself
        return (type(item), item)

    def _is_constant(self, item: Any) -> bool:
        return (
            isinstance(item, Node)
            and item.op == "get_attr"
            and str(item.target) not in self._variable
            and isinstance(item.meta.get("val"), torch.Tensor)
            and type(attribute(self._module, str(item.target))) in _PLAIN
        )

    def same_arguments(self, one: Node, other: Node) -> bool:
        """Whether two nodes with the same key read constants that hold the same."""
        return all(
            a is b or self._same_constant(str(a.target), str(b.target))
            for a, b in zip(_reads(one), _reads(other), strict=True)
        )

    def _same_constant(self, one: str, other: str) -> bool:
        if one == other:
            return True
        if (one, other) not in self._same:
            left, right = (attribute(self._module, name).detach() for name in (one, other))
            first = left.reshape(-1)[:8], right.reshape(-1)[:8]  # weights differ here already
            self._same[one, other] = _equal(*first) and _equal(left, right)
        return self._same[one, other]


def _reads(node: Node) -> list[Node]:
    """The nodes among the arguments, in their order, also where one stands twice."""
    found: list[Node] = []
    torch.fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    copies = (x.reshape(-1).clone(memory_format=torch.contiguous_format) for x in (left, right))
    return torch.equal(*(copy.view(torch.uint8) for copy in copies))
