"""The graph of a method as it is drawn: instructions, and in place of delegates that can be looked
into their nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.tools.describe.delegates import DelegateDescription
from penstock.tools.describe.instructions import InstructionDescription
from penstock.tools.describe.program import MethodDescription


@dataclass(frozen=True)
class DrawnNode:
    """A box.

    ``kind`` is ``input``, ``output``, that of an instruction, or ``node`` for a node of a delegate;
    ``position`` is that of the instruction, or the place among inputs or outputs; ``node`` the
    place of a node in its delegate, else -1.
    """

    id: str
    kind: str
    position: int
    node: int = -1


@dataclass(frozen=True)
class DrawnEdge:
    """From who makes a value to who reads it, by ids; ``value`` is its number in the method, or in
    the delegate where both ends are nodes of one. ``jump`` marks where the execution may go on."""

    start: str
    end: str
    value: int = -1
    jump: bool = False


@dataclass(frozen=True)
class Drawing:
    """Boxes in the order of execution, and what connects them, each pair of boxes once."""

    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]


def draw(method: MethodDescription) -> Drawing:
    """The drawing of a method. Constants are not drawn, nor is the freeing of memory."""
    return _Drawer(method).drawing()


class _Drawer:
    def __init__(self, method: MethodDescription) -> None:
        self._method = method
        self._nodes: list[DrawnNode] = []
        self._edges: dict[tuple[str, str, bool], DrawnEdge] = {}
        #: the box that made a value of the method last
        self._maker: dict[int, str] = {}
        self._lists = {value.id: value for value in method.values if value.items}
        self._views = {v.id: v.view_of for v in method.values if v.view_of is not None}

    def drawing(self) -> Drawing:
        for place, number in enumerate(self._method.inputs):
            self._node(f"in{place}", "input", place)
            self._maker[number] = f"in{place}"
        entry: dict[int, str] = {}
        for one in self._method.instructions:
            before = len(self._nodes)
            self._instruction(one)
            if len(self._nodes) > before:
                entry[one.position] = self._nodes[before].id
        for place, number in enumerate(self._method.outputs):
            self._node(f"out{place}", "output", place)
            self._edge(number, f"out{place}")
        for one in self._method.instructions:
            if one.destination in entry:
                key = (f"i{one.position}", entry[one.destination], True)
                self._edges.setdefault(key, DrawnEdge(key[0], key[1], jump=True))
        return Drawing(tuple(self._nodes), tuple(self._edges.values()))

    def _node(self, id_: str, kind: str, position: int, node: int = -1) -> None:
        self._nodes.append(DrawnNode(id_, kind, position, node))

    def _edge(self, number: int, end: str) -> None:
        """From the maker of a value of the method, if a box made it."""
        start = self._maker.get(self._views.get(number, number))
        if start is not None and start != end:
            self._connect(start, end, number)

    def _connect(self, start: str, end: str, value: int) -> None:
        self._edges.setdefault((start, end, False), DrawnEdge(start, end, value))

    def _instruction(self, one: InstructionDescription) -> None:
        if one.kind == "free":
            return
        delegate = None if one.delegate is None else self._method.delegates[one.delegate]
        if delegate is not None and delegate.nodes:
            self._delegate(one, delegate)
            return
        name = f"i{one.position}"
        self._node(name, one.kind, one.position)
        for number in self._flat(one.inputs):
            self._edge(number, name)
        for number in self._flat(one.outputs):
            self._maker[number] = name

    def _delegate(self, call: InstructionDescription, delegate: DelegateDescription) -> None:
        by_external = {
            place: number
            for places, numbers in (
                (delegate.inputs, call.inputs), (delegate.outputs, call.outputs),
            )
            if len(places) == len(numbers)
            for place, number in zip(places, numbers, strict=True)
        }  # fmt: skip
        outside = {
            value.id: by_external[value.external_id]
            for value in delegate.values
            if value.external_id is not None and value.external_id in by_external
        }
        inputs = {value.id for value in delegate.values if value.kind == "input"}
        maker: dict[int, str] = {}
        for node in delegate.nodes:
            name = f"i{call.position}n{node.position}"
            self._node(name, "node", call.position, node.position)
            for value in node.inputs:
                if value in maker:
                    self._connect(maker[value], name, value)
                elif value in inputs and value in outside:
                    self._edge(outside[value], name)
            maker.update(dict.fromkeys(node.outputs, name))
        for value, number in outside.items():
            if value in maker:
                self._maker[number] = maker[value]

    def _flat(self, numbers: Sequence[int]) -> list[int]:
        """Values with lists of values replaced by what is in them."""
        found: list[int] = []
        for number in numbers:
            value = self._lists.get(number)
            found += [number] if value is None else [i for i in value.items if i >= 0]
        return found
