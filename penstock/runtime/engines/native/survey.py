"""What our kernels can do for a graph: which family takes each node, and what packs its weights.

Made when an engine is first asked about a graph. The parts that the graph is cut into have the same
nodes, so that nothing is found out twice.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.graph.shapes import ShapeError, bounds
from penstock.runtime.engines.native import costs, lookup
from penstock.runtime.engines.native.activations import FORMS, activation_chains
from penstock.runtime.engines.native.assignment import assigned
from penstock.runtime.engines.native.chains import Chain, Match, Pattern
from penstock.runtime.engines.native.combs import comb_chains, is_comb
from penstock.runtime.engines.native.decoder_chains import decoder_chains
from penstock.runtime.engines.native.families import BY_KIND
from penstock.runtime.engines.native.family import Family, Packer
from penstock.runtime.engines.native.group_norms import group_norm_chains
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.norms import layer_norm_chains
from penstock.runtime.engines.native.norms_bits import has_the_same_bits as norms_agree
from penstock.runtime.engines.native.recurrent import cell_chains
from penstock.runtime.engines.native.recurrent_bits import has_the_same_bits as cells_agree
from penstock.runtime.engines.native.rules import goes_whole
from penstock.runtime.engines.native.sdpa_bits import has_the_same_bits as attention_agrees
from penstock.runtime.engines.native.sdpa_chains import sdpa_chains
from penstock.runtime.engines.native.tables import Tables

#: Activations in int8: with scales that the file has, and ones quantized at run time too.
_STATIC = frozenset({DataType.QINT8, DataType.QUINT8})
_INT8 = _STATIC | {DataType.QDINT8, DataType.QPINT8}
#: Chains in float32 have a node of these.
_HEADS = frozenset({NodeKind.SOFTMAX, *FORMS})


class Found(NamedTuple):
    """The family of a node, and what packs its weights."""

    family: Family
    pack: Packer


def _chains(
    graph: XnnGraph, shapes: Mapping[int, Shape], tables: Tables, library: Library
) -> tuple[list[Chain], list[Match]]:
    """All chains of ``graph``, and those of a decoder's layers."""
    found: list[Chain] = [*tables.of(graph, lookup.chains(graph, shapes))]
    layers: list[Match] = []
    taken = {id(node) for chain in found for node in chain.nodes}
    heads = any(node.kind in _HEADS and id(node) not in taken for node in graph.nodes)
    # Sums in another order round otherwise, which answers by way of int8 would show, and those have
    # the same bits on every engine: beside int8, only what gives XNNPACK's bits here.
    made = {value.dtype for value in graph.values if value.data is None}
    fp32 = made.isdisjoint(_INT8)

    def kept(chains: list[Match], agree: Callable[[Library], bool]) -> list[Match]:
        return chains if chains and (fp32 or agree(library)) else []

    combs = (fp32 or made.isdisjoint(_STATIC)) and any(is_comb(node) for node in graph.nodes)
    norms = any(node.kind is NodeKind.RECIPROCAL_SQUARE_ROOT for node in graph.nodes)
    cells = any(node.kind is NodeKind.TANH for node in graph.nodes)
    if heads or combs or norms or cells:
        pattern = Pattern(graph, shapes)
    if combs:
        found += comb_chains(pattern, taken, library)
    if cells:
        found += kept(cell_chains(pattern, taken, library), cells_agree)
    taken.update(id(node) for chain in found for node in chain.nodes)
    if heads:
        layers = decoder_chains(pattern)
        found += layers
        taken.update(id(node) for chain in layers for node in chain.nodes)
        if not layers:
            found += kept(sdpa_chains(pattern, taken, library), attention_agrees)
            taken.update(id(node) for chain in found for node in chain.nodes)
        if fp32 or layers:
            found += activation_chains(pattern, taken)
    if norms and (fp32 or layers):
        found += layer_norm_chains(pattern, taken)
    elif norms:
        found += kept(layer_norm_chains(pattern, taken, exact=True), norms_agree)
    if norms and fp32:
        taken.update(id(node) for chain in found for node in chain.nodes)
        found += group_norm_chains(pattern, taken)
    return found, layers


class Survey:
    """What was found about ``graph``, which has been checked. It keeps the graph, so that nodes can
    go by their identity."""

    def __init__(self, graph: XnnGraph, tables: Tables, library: Library) -> None:
        self.graph = graph
        self.library = library
        self.values = {value.id: value for value in graph.values}
        self._nodes = {id(node) for node in graph.nodes}
        inside = {
            v.id for v in graph.values if v.data is None and v.dtype.traits.array is None
        }  # of what cannot leave the part that makes it
        self._makers = {i: n for n in graph.nodes for i in n.outputs if i in inside}
        #: the shapes of all values; None where they contradict each other, so that no engine can
        #: run the graph
        self.bounds: Mapping[int, Shape] | None = None
        found: list[Chain] = []
        layers: list[Match] = []
        with contextlib.suppress(ShapeError):
            self.bounds = bounds(graph)
            found, layers = _chains(graph, self.bounds, tables, library)
        self._chains = {id(node): chain for chain in found for node in chain.nodes}
        #: whether it is a decoder whose layers are ours: a cut at each product would cost more than
        #: another engine's products bring
        self.decoder = any(not chain.slower(library) for chain in layers)
        self._found: dict[int, Found | str] = {}
        self._gains: dict[int, str | float | None] = {}

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

    def unable(self, node: Node) -> str | None:
        """Why none of our kernels can run ``node``."""
        if self.chain_of(node) is not None:
            return None
        found = self.found(node)
        if isinstance(found, str):
            return found
        for maker in self.makers(node) if self._makers else ():  # which goes with this node
            if isinstance(self.found(maker), str):
                return f"what makes its input is of kind {maker.kind.name}"
        return self._rounded_once(node)

    def _rounded_once(self, node: Node) -> str | None:
        """XNNPACK makes one node of a node and the clamp that alone reads it: in int8 with two
        scales it rounds once, and a clamp in another part would round a second time."""
        result = self.values[node.outputs[0]]
        readers = self._readers.get(result.id, ())
        if result.dtype not in _STATIC or result.is_output or len(readers) != 1:
            return None
        (clamp,) = readers
        if clamp.kind is not NodeKind.CLAMP:
            return None
        scales = result.quantization, self.values[clamp.outputs[0]].quantization
        return None if scales[0] == scales[1] else "XNNPACK rounds it and its clamp at once"

    def slower(self, node: Node) -> str | None:
        """Why another engine should have ``node`` all the same, if our kernels can run it."""
        alone = self._alone(node)
        if not isinstance(alone, float):
            return alone
        ours = self._by_neighbours(node, alone)
        if ours is None:
            ours = id(node) in self._ours
        return None if ours else "what it would gain, cuts of the graph cost"

    def _by_neighbours(self, node: Node, gain: float) -> bool | None:
        """Whether ``node`` is ours where all that it shares values with have no choice: as in the
        assignment of all nodes, which takes longer. None where one of them has."""
        if "_ours" in vars(self) or self.chain_of(node) is not None:
            return None
        for i in (*node.inputs, *node.outputs):
            maker = self._producers.get(i)
            if maker is None:  # whoever reads what is there already
                continue
            ends = (maker, *self._readers.get(i, ()))
            sides = {self._side(end) for end in ends if end is not node}
            if None in sides or i in self._makers:
                return None
            if len(sides) == 1:  # else the value crosses anyway
                gain += costs.crossing(self._bytes(i)) * (1 if True in sides else -1)
        return gain > 0

    def _side(self, node: Node) -> bool | None:
        """Whether ``node`` is ours, if it has no choice."""
        alone = self.unable(node) or self._alone(node)
        return None if isinstance(alone, float) or self._stays_inside(node) else alone is None

    @functools.cached_property
    def _producers(self) -> Mapping[int, Node]:
        """The node that makes each value."""
        return {i: node for node in self.graph.nodes for i in node.outputs}

    @functools.cached_property
    def _readers(self) -> Mapping[int, Sequence[Node]]:
        """The nodes that read each value."""
        found: dict[int, list[Node]] = {}
        for node in self.graph.nodes:
            for i in node.inputs:
                found.setdefault(i, []).append(node)
        return found

    def _alone(self, node: Node) -> str | float | None:
        """What ``node`` gains on our kernels, where that is to be weighed against cuts; else why
        another engine should have it."""
        key = id(node)
        if key not in self._gains:
            self._gains[key] = self._gain(node)
        return self._gains[key]

    def _gain(self, node: Node) -> str | float | None:
        chain = self.chain_of(node)
        if chain is not None:
            reason = chain.slower(self.library)
            return chain.gain if reason is None and not self.decoder else reason
        if self.decoder and goes_whole(self.library):
            return None
        found = self.found(node)
        assert not isinstance(found, str)
        gain = found.family.gain(node, self.values, self.library)
        return found.family.slower(node, self.values, self.library) if gain is None else gain

    @functools.cached_property
    def _ours(self) -> set[int]:
        """The identities of the nodes that our kernels get, with the cuts weighed."""
        nodes = [n for n in self.graph.nodes if not self._stays_inside(n)]
        vertices: dict[int, int] = {}  # by the identity of a node or its chain
        number: dict[int, int] = {}
        gains: list[float] = []
        for node in nodes:
            unit = id(self.chain_of(node) or node)
            if unit not in vertices:
                vertices[unit] = len(gains)
                alone = self.unable(node) or self._alone(node)
                fixed = math.inf if alone is None else -math.inf
                gains.append(alone if isinstance(alone, float) else fixed)
            number[id(node)] = vertices[unit]
        readers: dict[int, list[int]] = {}
        for node in nodes:
            for value in self._sources(node):
                readers.setdefault(value, []).append(number[id(node)])
        values = [
            (number[id(node)], readers[i], costs.crossing(self._bytes(i)))
            for node in nodes
            for i in node.outputs
            if i in readers
        ]
        ours = assigned(gains, values)
        return {id(node) for node in nodes if number[id(node)] in ours}

    def _stays_inside(self, node: Node) -> bool:
        """Whether what ``node`` makes goes with those that read it."""
        return all(i in self._makers for i in node.outputs)

    def _sources(self, node: Node) -> list[int]:
        """What ``node`` reads, or what makes it does."""
        found = []
        for i in node.inputs:
            maker = self._makers.get(i)
            found += self._sources(maker) if maker else [] if i == INVALID_VALUE_ID else [i]
        return found

    def _bytes(self, value: int) -> int:
        found = self.values[value]
        return costs.bytes_of(found.shape, found.dtype.traits.bits)

    def _examined(self, node: Node) -> Found | str:
        reasons = []
        for family in BY_KIND[node.kind]:
            found = family.examine(node, self.values)
            if not isinstance(found, str):
                return Found(family, found)
            reasons.append(found)
        return reasons[0] if reasons else f"there are no kernels for nodes of kind {node.kind.name}"
