"""What our kernels can do for a graph: which family takes each node, and what packs its weights.

Made when an engine is first asked about a graph. The parts that the graph is cut into have the same
nodes, so that nothing is found out twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.graph.graph import Node, XnnGraph
from penstock.runtime.engines.native import lookup, winograd
from penstock.runtime.engines.native.chains import Chain, Match
from penstock.runtime.engines.native.decoder_chains import decoder_chains
from penstock.runtime.engines.native.families import BY_KIND
from penstock.runtime.engines.native.family import Family, Packer
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.tables import Tables


class Found(NamedTuple):
    """The family of a node, and what packs its weights."""

    family: Family
    pack: Packer


class Survey:
    """What was found about ``graph``, which has been checked. It keeps the graph, so that nodes can
    go by their identity."""

    def __init__(self, graph: XnnGraph, tables: Tables, library: Library) -> None:
        self.graph = graph
        self.values = {value.id: value for value in graph.values}
        self._nodes = {id(node) for node in graph.nodes}
        inside = {
            v.id for v in graph.values if v.data is None and v.dtype.traits.array is None
        }  # of what cannot leave the part that makes it
        self._makers = {i: n for n in graph.nodes for i in n.outputs if i in inside}
        found: list[Chain] = [*tables.of(graph, lookup.chains(graph)), *decoder_chains(graph)]
        self._chains = {id(node): chain for chain in found for node in chain.nodes}
        #: whether it is a decoder whose layers are ours: a cut at each product would cost more than
        #: another engine's products bring
        self.decoder = any(
            isinstance(chain, Match) and not chain.slower(library) for chain in found
        )
        self._found: dict[int, Found | str] = {}
        #: which part of the multiply-adds goes Winograd's way
        self.winograd = winograd.share(graph.nodes, self.values)

    def units(self) -> list[list[int]]:
        """The positions of the nodes of each chain."""
        position = {id(node): position for position, node in enumerate(self.graph.nodes)}
        chains = {id(chain): chain for chain in self._chains.values()}
        return [sorted(position[id(n)] for n in chain.nodes) for chain in chains.values()]

    def knows(self, node: Node) -> bool:
        """Whether ``node`` is one of the graph's."""
        return id(node) in self._nodes

    def chain_of(self, node: Node) -> Chain | None:
        """The chain that ``node`` belongs to."""
        return self._chains.get(id(node))

    def found(self, node: Node) -> Found | str:
        """What takes ``node``, or why nothing does."""
        known = self._found.get(id(node))
        if known is None:
            known = self._found[id(node)] = self._examined(node)
        return known

    def makers(self, node: Node) -> Sequence[Node]:
        """The nodes that make what ``node`` reads and what cannot leave a part."""
        return [self._makers[i] for i in node.inputs if i in self._makers]

    def _examined(self, node: Node) -> Found | str:
        reasons = []
        for family in BY_KIND[node.kind]:
            found = family.examine(node, self.values)
            if not isinstance(found, str):
                return Found(family, found)
            reasons.append(found)
        return reasons[0] if reasons else f"there are no kernels for nodes of kind {node.kind.name}"
