"""Cutting a graph into parts, one engine for each.

A part is an ``XnnGraph`` of its own. What one part makes and another one reads is an output of the
first and an input of the second, in the types that engines exchange arrays in; int8 values cross as
they are, so that cutting never changes an int8 answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape, Value, XnnGraph
from penstock.graph.shapes import bounds


@dataclass(frozen=True)
class Part:
    """Nodes of a graph for the engine number ``engine``, as a graph of their own, in which values
    have the ids that they have in the whole. ``nodes`` are the positions of its nodes there."""

    engine: int
    graph: XnnGraph
    nodes: tuple[int, ...]

    @property
    def inputs(self) -> Sequence[int]:
        """The ids of what it reads."""
        return self.graph.inputs

    @property
    def outputs(self) -> Sequence[int]:
        """The ids of what it makes for others."""
        return self.graph.outputs


def cut(
    graph: XnnGraph,
    engines: Sequence[int],
    *,
    checked: bool = False,
    units: Sequence[Sequence[int]] = (),
    shapes: Mapping[int, Shape] | None = None,
) -> list[Part]:
    """``graph`` (checked) in as few parts as the choice of engines allows, in an order in which
    they can run. ``engines`` has the number of an engine for each node of ``graph.nodes``.

    A node that makes what cannot leave a part (a value quantized at run time) goes with each of
    its readers, whatever its own engine. ``checked``: an engine has checked the graph, so that the
    parts need not be checked again. ``units`` are the positions of nodes, in order, that an engine
    runs as one: they have the same engine, what they make is read outside behind the last one only,
    and they are in one part. ``shapes`` are the graph's bounds
    (:func:`~penstock.graph.shapes.bounds`), where they are known.

    Raises ShapeError where a node cannot take the declared shapes of its inputs.
    """
    return _Cut(graph, checked, units, bounds(graph) if shapes is None else shapes).parts(engines)


class _Cut:
    def __init__(
        self,
        graph: XnnGraph,
        checked: bool,
        units: Sequence[Sequence[int]],
        shapes: Mapping[int, Shape],
    ) -> None:
        #: the nodes of a unit by its last one, and the others, which go with it
        self.units = {id(graph.nodes[unit[-1]]): [graph.nodes[n] for n in unit] for unit in units}
        self.inside_units = {id(graph.nodes[n]) for unit in units for n in unit[:-1]}
        self.graph = graph
        self.checked = checked
        self.values = {value.id: value for value in graph.values}
        #: what can leave a part
        self.crossing = {v.id for v in graph.values if v.dtype.traits.array is not None}
        self.producer = {output: node for node in graph.nodes for output in node.outputs}
        self.position = {id(node): position for position, node in enumerate(graph.nodes)}
        self.shapes = shapes

    def parts(self, engines: Sequence[int]) -> list[Part]:
        groups = self._groups(engines)
        made_in = {
            output: key
            for key, nodes in groups.items()
            for node in nodes
            for output in node.outputs
        }
        wanted: dict[tuple[int, int], set[int]] = {key: set() for key in groups}
        for output in self.graph.outputs:
            wanted[made_in[output]].add(output)
        for key, nodes in groups.items():
            for value in self._read(nodes):
                if made_in.get(value, key) != key and self._crosses(value):
                    wanted[made_in[value]].add(value)
        return [self._part(key[1], groups[key], wanted[key]) for key in sorted(groups)]

    def _groups(self, engines: Sequence[int]) -> dict[tuple[int, int], list[Node]]:
        """Nodes by level and engine. A level is one more than that of a producer with another
        engine, so a group depends on groups of lower levels alone."""
        level: dict[int, int] = {}
        groups: dict[tuple[int, int], dict[int, Node]] = {}
        engine_of = {id(n): e for n, e in zip(self.graph.nodes, engines, strict=True)}
        for node in self.graph.nodes:
            if self._stays_inside(node) or id(node) in self.inside_units:
                continue
            engine, own = engine_of[id(node)], 0
            together = self.units.get(id(node), [node])
            members = {id(member) for member in together}
            inside: list[Node] = []
            for value in (v for member in together for v in self._sources(member, inside)):
                producer = self.producer[value]
                if id(producer) not in members:
                    own = max(own, level[id(producer)] + (engine_of[id(producer)] != engine))
            level.update(dict.fromkeys(members, own))
            group = groups.setdefault((own, engine), {})
            for item in (*inside, *together):
                group.setdefault(id(item), item)
        return {key: list(group.values()) for key, group in groups.items()}

    def _sources(self, node: Node, inside: list[Node]) -> list[int]:
        """What ``node`` reads that other nodes make, looking through those that stay inside a
        part, which go to ``inside``, producers first."""
        found: list[int] = []
        for value in node.inputs:
            producer = self.producer.get(value)
            if producer is None:
                continue
            if self._stays_inside(producer):
                found += self._sources(producer, inside)
                inside.append(producer)
            else:
                found.append(value)
        return found

    def _stays_inside(self, node: Node) -> bool:
        return self.crossing.isdisjoint(node.outputs)

    def _crosses(self, value: int) -> bool:
        return value in self.crossing

    def _read(self, nodes: Sequence[Node]) -> list[int]:
        return [i for node in nodes for i in node.inputs if i != INVALID_VALUE_ID]

    def _part(self, engine: int, nodes: Sequence[Node], wanted: set[int]) -> Part:
        made = {output for node in nodes for output in node.outputs}
        used = dict.fromkeys([*self._read(nodes), *(o for n in nodes for o in n.outputs)])
        inputs = [i for i in used if i not in made and self.values[i].data is None]
        outputs = [i for i in used if i in wanted]
        external = {i: position for position, i in enumerate([*inputs, *outputs])}
        graph = XnnGraph(
            values=[
                self._value(i, external.get(i), i in wanted)
                for i in dict.fromkeys([*external, *used])
            ],
            nodes=list(nodes),
            inputs=inputs,
            outputs=outputs,
            # Each node is what it was, and the shapes are those that follow from the inputs'.
            checked=self.checked,
        )
        positions = tuple(self.position[id(node)] for node in nodes)
        return Part(engine, graph, positions)

    def _value(self, i: int, external: int | None, output: bool) -> Value:
        """Value ``i`` in a part where it has this external id."""
        value, shape = self.values[i], self.shapes[i]
        inside = external is None and value.external_id is None
        if inside and value.shape == shape:
            return value
        return Value(
            i, value.dtype, shape, value.quantization, value.data,
            external, external is not None and not output, output,
        )  # fmt: skip
