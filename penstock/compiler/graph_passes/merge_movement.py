"""Reshapes and transposes in a row become as few as will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstock.compiler.graph_passes.index import Index
from penstock.formats.payload import (
    MAX_TENSOR_DIMS,
    Node,
    NodeKind,
    ReshapeAttributes,
    TransposeAttributes,
    XnnGraph,
)

MOVEMENT = (NodeKind.STATIC_RESHAPE, NodeKind.STATIC_TRANSPOSE)
#: A transpose moves data; a reshape seldom does.
COST = {NodeKind.STATIC_RESHAPE: 1, NodeKind.STATIC_TRANSPOSE: 10}


@dataclass(eq=False)
class Atom:
    """A factor of a dimension of the source that moves as one; ``parts`` once it was split."""

    size: int
    parts: tuple[Atom, Atom] | None = None

    def split(self, first: int) -> tuple[Atom, Atom]:
        self.parts = Atom(first), Atom(self.size // first)
        return self.parts


@dataclass(frozen=True)
class Moves:
    """``reshape`` to a shape, ``perm`` of that, ``reshape`` to the target; None: not needed."""

    before: tuple[int, ...] | None
    perm: tuple[int, ...] | None
    after: tuple[int, ...] | None

    @property
    def cost(self) -> int:
        shapes = (self.before is not None) + (self.after is not None)
        moves = COST[NodeKind.STATIC_TRANSPOSE] if self.perm is not None else 0
        return shapes * COST[NodeKind.STATIC_RESHAPE] + moves


def apply(graph: XnnGraph) -> None:
    """Given RESHAPE and TRANSPOSE nodes in a row → Result: at most a reshape, a transpose and a
    reshape, or nothing, where that is less than what then has no reader left. Across a dynamic
    dimension only neighbouring reshapes, and neighbouring transposes, become one."""
    index = Index(graph)
    for node in list(graph.nodes):
        if node.kind in MOVEMENT and node.inputs and _ends_here(index, node):
            _merge(index, node)
    index.finish()
    for node in reversed(graph.nodes):
        output = index.values[node.outputs[0]]
        if node.kind in MOVEMENT and not output.is_output and not index.readers[output.id]:
            index.remove(node)
    index.finish()


def _ends_here(index: Index, node: Node) -> bool:
    """Whether something else than movement reads the node's output."""
    output = node.outputs[0]
    if index.values[output].is_output or not index.readers[output]:
        return True
    return any(reader.kind not in MOVEMENT for reader in index.readers[output])


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
        _replace(index, node, chain[-best[1]].inputs[0], best[2])


def _chain(index: Index, node: Node) -> list[Node]:
    """The movement that leads to ``node``'s output, first node first."""
    chain = [node]
    while True:
        producer = index.producer.get(chain[0].inputs[0])
        if producer is None or producer.kind not in MOVEMENT:
            return chain
        chain.insert(0, producer)


def _replace(index: Index, node: Node, source: int, moves: Moves) -> None:
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
        index.remove(node)
        index.replace_uses(output, source)
        return
    current = source
    for kind, attributes in steps[:-1]:
        shape = index.values[current].shape
        if isinstance(attributes, TransposeAttributes):
            shape = tuple(shape[dim] for dim in attributes.perm)
        else:
            shape = attributes.new_shape
        value = index.new_value(
            replace(index.values[output], shape=shape, is_output=False, external_id=None)
        )
        index.insert_before(
            node, Node(kind, (current,), (value,), attributes, debug_handle=node.debug_handle)
        )
        current = value
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
        regrouped = _regrouped([a for dim in dims for a in dim], node.attributes.new_shape)
        if regrouped is None:
            return None
        dims = regrouped
    return _moves(
        source, [_settled([atom]) for atom in start], [_settled(dim) for dim in dims], target
    )


def _regrouped(atoms: Sequence[Atom], shape: Sequence[int]) -> list[list[Atom]] | None:
    """The atoms as dimensions of ``shape``, split where a dimension ends inside of one."""
    rest = _settled(atoms)[::-1]
    dims = []
    for size in shape:
        dim: list[Atom] = []
        while size > 1:
            if not rest:
                return None
            atom = rest.pop()
            if atom.size > size:
                if atom.size % size:
                    return None
                atom, remainder = atom.split(size)
                rest.append(remainder)
            if size % atom.size:
                return None
            size //= atom.size
            dim.append(atom)
        dims.append(dim)
    return dims


def _settled(atoms: Sequence[Atom]) -> list[Atom]:
    """The atoms as they were split later, without those of size 1."""
    result: list[Atom] = []
    for atom in atoms:
        if atom.parts is not None:
            result += _settled(atom.parts)
        elif atom.size > 1:
            result.append(atom)
    return result


def _moves(
    source: tuple[int, ...],
    before: list[list[Atom]],
    after: list[list[Atom]],
    target: tuple[int, ...],
) -> Moves | None:
    old = [atom for dim in before for atom in dim]
    new = [atom for dim in after for atom in dim]
    if old == new:
        return Moves(None, None, None if source == target else target)
    options = [
        _from_groups(source, [dim for dim in before if dim], new, target),
        _to_groups(source, old, after, target),
        _from_groups(source, _runs(old, new), new, target),
    ]
    found = [moves for moves in options if moves is not None]
    return min(found, key=lambda moves: moves.cost) if found else None


def _runs(old: list[Atom], new: list[Atom]) -> list[list[Atom]]:
    """The atoms of the source in the longest groups that stay together."""
    place = {id(atom): position for position, atom in enumerate(new)}
    runs: list[list[Atom]] = []
    for atom in old:
        if runs and place[id(atom)] == place[id(runs[-1][-1])] + 1:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    return runs


def _sizes(groups: Sequence[Sequence[Atom]]) -> tuple[int, ...]:
    sizes = []
    for group in groups:
        size = 1
        for atom in group:
            size *= atom.size
        sizes.append(size)
    return tuple(sizes)


def _order(groups: list[list[Atom]], atoms: list[Atom]) -> list[int] | None:
    """The order of the groups in which their atoms come as in ``atoms``; None if there is none."""
    group_of = {id(group[0]): position for position, group in enumerate(groups)}
    order: list[int] = []
    position = 0
    while position < len(atoms):
        found = group_of.get(id(atoms[position]))
        if found is None or atoms[position : position + len(groups[found])] != groups[found]:
            return None
        order.append(found)
        position += len(groups[found])
    return order


def _from_groups(
    source: tuple[int, ...], groups: list[list[Atom]], new: list[Atom], target: tuple[int, ...]
) -> Moves | None:
    """Transposes the source in ``groups`` of its atoms, then reshapes."""
    order = _order(groups, new)
    sizes = _sizes(groups)
    if order is None or len(sizes) > MAX_TENSOR_DIMS:
        return None
    if sizes == tuple(size for size in source if size != 1):
        # The dimensions of size 1 stay where they are.
        places = [place for place, size in enumerate(source) if size != 1]
        moved = iter(places[group] for group in order)
        perm = tuple(next(moved) if size != 1 else place for place, size in enumerate(source))
        shape = tuple(source[place] for place in perm)
        return Moves(None, perm, None if shape == target else target)
    shape = tuple(sizes[group] for group in order)
    return Moves(sizes, tuple(order), None if shape == target else target)


def _to_groups(
    source: tuple[int, ...], old: list[Atom], after: list[list[Atom]], target: tuple[int, ...]
) -> Moves | None:
    """Reshapes the source so that one transpose gives the target."""
    groups = [dim for dim in after if dim]
    order = _order(groups, old)
    if order is None:
        return None
    places = [place for place, size in enumerate(target) if size != 1]
    moved = iter(places[group] for group in order)
    inverse = tuple(next(moved) if size != 1 else place for place, size in enumerate(target))
    shape = tuple(target[place] for place in inverse)
    perm = [0] * len(inverse)
    for position, place in enumerate(inverse):
        perm[place] = position
    return Moves(None if shape == source else shape, tuple(perm), None)
