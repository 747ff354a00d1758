"""Combine chains of reshapes and transposes into as few as will do."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler.delegate.passes.factors import (
    COST,
    Atom,
    Moves,
    moves_between,
    regrouped,
    settled,
)
from penstock.graph.graph import Node, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import NodeKind, ReshapeAttributes, TransposeAttributes


def apply(graph: XnnGraph) -> None:
    """Given RESHAPE and TRANSPOSE nodes in a row → Result: at most a reshape, a transpose and a
    reshape, or nothing, where that is less than what then has no reader left. Across a dynamic
    dimension only neighbouring reshapes, and neighbouring transposes, become one."""
    index = Index(graph)
    for node in index.walk():
        if node.kind.traits.rearranges and _ends_here(index, node):
            _merge(index, node)
    index.finish()
    for node in reversed(graph.nodes):
        output = index.values[node.outputs[0]]
        if node.kind.traits.rearranges and not output.is_output and not index.readers[output.id]:
            index.remove(node)
    index.finish()


def _ends_here(index: Index, node: Node) -> bool:
    """Whether something else than movement reads the node's output."""
    output = node.outputs[0]
    if index.values[output].is_output or not index.readers[output]:
        return True
    return any(not reader.kind.traits.rearranges for reader in index.readers[output])


def _merge(index: Index, node: Node) -> None:
    chain = _chain(index, node)
    target = index.values[node.outputs[0]]
    best: tuple[int, int, Moves] | None = None
    spent, exclusive = 0, True
    for length in range(1, len(chain) + 1):
        link = chain[-length]
        if length > 1:
            exclusive = exclusive and index.only_reader(link.outputs[0]) is not None
        spent += COST[link.kind] if exclusive else 0
        source = index.values[link.inputs[0]].shape
        moves = composed(source, chain[-length:], target.shape)
        if moves is not None and (best is None or spent - moves.cost > best[0]):
            best = (spent - moves.cost, length, moves)
    if best is not None and best[0] > 0:
        carry_out(index, node, chain[-best[1]].inputs[0], best[2])


def _chain(index: Index, node: Node) -> list[Node]:
    """The movement that leads to ``node``'s output, first node first."""
    chain = [node]
    while True:
        producer = index.producer.get(chain[0].inputs[0])
        if producer is None or not producer.kind.traits.rearranges:
            return chain
        chain.insert(0, producer)


def carry_out(index: Index, node: Node, source: int, moves: Moves) -> None:
    """``node`` becomes the last of ``moves`` from ``source`` to its output. An output of the graph
    cannot be without a node: there nothing changes where no move is left."""
    output = node.outputs[0]
    steps: list[tuple[NodeKind, ReshapeAttributes | TransposeAttributes]] = []
    if moves.before is not None:
        steps.append((NodeKind.STATIC_RESHAPE, ReshapeAttributes(moves.before)))
    if moves.perm is not None:
        steps.append((NodeKind.STATIC_TRANSPOSE, TransposeAttributes(moves.perm)))
    if moves.after is not None:
        steps.append((NodeKind.STATIC_RESHAPE, ReshapeAttributes(moves.after)))
    if not steps:
        if index.values[output].is_output:
            return
        index.replace(node, source)
        return
    current = source
    for kind, attributes in steps[:-1]:
        shape = index.values[current].shape
        if isinstance(attributes, TransposeAttributes):
            shape = tuple(shape[dim] for dim in attributes.perm)
        else:
            # A dynamic first dimension has its upper bound.
            shape = (attributes.new_shape[0] or shape[0], *attributes.new_shape[1:])
        current = index.add(kind, (current,), shape, attributes, like=node)
    node.kind, node.attributes = steps[-1]
    index.set_inputs(node, (current,))


# --- what a chain does as a whole ----------------------------------------------------------------


def composed(
    source: tuple[int, ...], chain: Sequence[Node], target: tuple[int, ...]
) -> Moves | None:
    """The chain as few moves; None where it cannot be said so."""
    attributes = [node.attributes for node in chain]
    shapes = [item.new_shape for item in attributes if isinstance(item, ReshapeAttributes)]
    if len(shapes) == len(chain):
        same = source == target and not any(0 in shape for shape in shapes)
        return Moves(None, None, None if same else shapes[-1])
    if not shapes:
        perm = tuple(range(len(source)))
        for node in chain:
            assert isinstance(node.attributes, TransposeAttributes)
            perm = tuple(perm[dim] for dim in node.attributes.perm)
        return Moves(None, None if perm == tuple(range(len(perm))) else perm, None)
    if any(0 in shape for shape in shapes):
        return None
    start = [Atom(size) for size in source]
    dims = [[atom] for atom in start]
    for node in chain:
        if isinstance(node.attributes, TransposeAttributes):
            dims = [dims[dim] for dim in node.attributes.perm]
            continue
        assert isinstance(node.attributes, ReshapeAttributes)
        grouped = regrouped([a for dim in dims for a in dim], node.attributes.new_shape)
        if grouped is None:
            return None
        dims = grouped
    return moves_between(
        source, [settled([atom]) for atom in start], [settled(dim) for dim in dims], target
    )
