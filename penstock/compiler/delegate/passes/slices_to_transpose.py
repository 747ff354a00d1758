"""Recognize slices and a concatenation that together are a transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.compiler.delegate.passes.factors import Atom, Moves, moves_between, regrouped, settled
from penstock.compiler.delegate.passes.merge_movement import carry_out
from penstock.graph.graph import MAX_TENSOR_DIMS, Node, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import (
    ConcatenateAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)


@dataclass
class Piece:
    """What a chain of movement makes of a source: the factors in each dimension of the result, and
    those of which it took one index, as joint factors (outermost first) and the index."""

    dims: list[list[Atom]]
    fixed: list[tuple[list[Atom], int]] = field(default_factory=list)

    def indices(self) -> dict[int, int]:
        """The index taken of each factor, by its id."""
        found: dict[int, int] = {}
        for atoms, index in self.fixed:
            for atom in reversed(settled(atoms)):
                index, found[id(atom)] = divmod(index, atom.size)
        return found


def apply(graph: XnnGraph) -> None:
    """Given CONCATENATE(SLICE(RESHAPE(x)) …), the slices being all indices of some factors of the
    dimensions of ``x``, each once, in row-major order of these factors → Result
    RESHAPE(TRANSPOSE(RESHAPE(x))). (Space to depth: the patches that Swin merges, YOLO's focus.)

    Sizes must be fixed; the first dimension may vary. What is sliced for others as well stays,
    unless no data has to move any more. A transpose reads and writes everything once, slices and
    concatenation do so twice, and single elements at several times the cost: on one x86-64 core
    4.7 ms become 0.4 for an image of 640 x 640, 90 us become 40 where Swin first merges patches.
    """
    index = Index(graph)
    for node in reversed(list(graph.nodes)):
        if isinstance(node.attributes, ConcatenateAttributes) and index.alive(node):
            _replace(index, node, node.attributes.axis % len(index.values[node.outputs[0]].shape))
    index.finish()


def _replace(index: Index, node: Node, axis: int) -> None:
    joined = [node]
    paths = [_path(index, value) for value in _parts(index, node, joined)]
    source = _common(paths)
    if source is None:
        return
    chains = [path.nodes_from(source) for path in paths]
    moves = _moves(index, source, chains, node, axis)
    nodes = {id(link): link for chain in chains for link in chain}
    if moves is None or not (moves.perm is None or _exclusive(index, [*nodes.values(), *joined])):
        return
    output = index.values[node.outputs[0]]
    if output.is_output and moves == Moves(None, None, None):
        return
    carry_out(index, node, source, moves)
    _remove_unread(index, [*joined[1:], *nodes.values()])


@dataclass
class Path:
    """Values from one that is joined up to where its movement starts, and the nodes between."""

    values: list[int]
    nodes: list[Node]

    def nodes_from(self, source: int) -> list[Node]:
        """What leads from ``source`` to the end, first node first."""
        return self.nodes[: self.values.index(source)][::-1]


def _parts(index: Index, node: Node, joined: list[Node]) -> list[int]:
    """What is joined, through concatenations of concatenations, which go to ``joined``."""
    parts: list[int] = []
    for value in node.inputs:
        inner = index.producer.get(value)
        if (
            inner is not None
            and inner.attributes == node.attributes
            and index.only_reader(value) is not None
        ):
            joined.append(inner)
            parts += _parts(index, inner, joined)
        else:
            parts.append(value)
    return parts


def _path(index: Index, value: int) -> Path:
    path = Path([value], [])
    while True:
        node = index.producer.get(value)
        if node is None or not isinstance(
            node.attributes, (ReshapeAttributes, SliceAttributes, TransposeAttributes)
        ):
            return path
        value = node.inputs[0]
        path.nodes.append(node)
        path.values.append(value)


def _common(paths: Sequence[Path]) -> int | None:
    """The nearest value from which all paths come."""
    shared = set(paths[0].values).intersection(*(path.values for path in paths[1:]))
    return next((value for value in paths[0].values if value in shared), None)


def _exclusive(index: Index, nodes: Sequence[Node]) -> bool:
    """Whether only ``nodes`` (the last ones join what the others make) read what they make."""
    inside = {id(node) for node in nodes}
    made = [node.outputs[0] for node in nodes if not _joins(node)]
    return not any(
        index.values[value].is_output or any(id(n) not in inside for n in index.readers[value])
        for value in made
    )


def _joins(node: Node) -> bool:
    return isinstance(node.attributes, ConcatenateAttributes)


def _remove_unread(index: Index, nodes: Sequence[Node]) -> None:
    waiting = list(nodes)
    while waiting:
        unread = [
            node
            for node in waiting
            if not index.values[node.outputs[0]].is_output and not index.readers[node.outputs[0]]
        ]
        if not unread:
            return
        for node in unread:
            index.remove(node)
        waiting = [node for node in waiting if index.alive(node)]


# --- what slices and concatenation do as a whole -------------------------------------------------


def _moves(
    index: Index, source_id: int, chains: Sequence[Sequence[Node]], node: Node, axis: int
) -> Moves | None:
    """All of it as a reshape, a transpose and a reshape; None where it is not that."""
    source, output = index.values[source_id], index.values[node.outputs[0]]
    if (source.dtype, source.quantization) != (output.dtype, output.quantization):
        return None
    # Only the first dimension can be dynamic, and then nothing may touch it.
    lead = int(any(_is_dynamic(link) for chain in chains for link in chain))
    if lead and (axis == 0 or source.shape[0] != output.shape[0]):
        return None
    start = [Atom(size) for size in source.shape[lead:]]
    pieces = []
    for chain in chains:
        piece = _traced(index, start, chain, lead)
        if piece is None:
            return None
        pieces.append(piece)
    factors = _joined_factors(pieces)
    if factors is None:
        return None
    after = [settled(dim) for dim in pieces[0].dims]
    if any([settled(dim) for dim in piece.dims] != after for piece in pieces):
        return None
    after[axis - lead] = [*factors, *after[axis - lead]]
    before = [settled([atom]) for atom in start]
    moves = moves_between(source.shape[lead:], before, after, output.shape[lead:])
    return _below_first(moves) if moves is not None and lead else moves


def _is_dynamic(node: Node) -> bool:
    """Whether the node leaves a size to what it gets."""
    if isinstance(node.attributes, SliceAttributes):
        return 0 in node.attributes.sizes
    return isinstance(node.attributes, ReshapeAttributes) and 0 in node.attributes.new_shape


def _traced(index: Index, start: Sequence[Atom], chain: Sequence[Node], lead: int) -> Piece | None:
    """The chain's doings in all dimensions but the first ``lead``; None where it cannot be said
    in factors, or something moves in the first dimension."""
    piece = Piece([[atom] for atom in start])
    for node in chain:
        attributes = node.attributes
        before, after = (index.values[v].shape for v in (node.inputs[0], node.outputs[0]))
        if before[:lead] != after[:lead]:
            return None
        if isinstance(attributes, TransposeAttributes):
            if attributes.perm[:lead] != tuple(range(lead)):
                return None
            piece.dims = [piece.dims[dim - lead] for dim in attributes.perm[lead:]]
        elif isinstance(attributes, ReshapeAttributes):
            grouped = regrouped([a for dim in piece.dims for a in dim], after[lead:])
            if grouped is None:
                return None
            piece.dims = grouped
        else:
            assert isinstance(attributes, SliceAttributes)
            for dim, (whole, size) in enumerate(zip(before, after, strict=True)):
                if whole != size and not _take(piece, dim - lead, attributes.offsets[dim], size):
                    return None
    return piece


def _take(piece: Piece, dim: int, offset: int, size: int) -> bool:
    """Keeps ``size`` indices of a dimension: the dimension's inner factors, at one index of the
    outer ones."""
    atoms = settled(piece.dims[dim])
    extent = math.prod(atom.size for atom in atoms)
    if extent % size or offset % size:
        return False
    halves = regrouped(atoms, (extent // size, size))
    if halves is None:
        return False
    piece.fixed.append((halves[0], offset // size))
    piece.dims[dim] = halves[1]
    return True


def _joined_factors(pieces: Sequence[Piece]) -> list[Atom] | None:
    """The factors of which the pieces are all indices in row-major order, outermost first; None
    where they are not."""
    fixed = [atom for atoms, _ in pieces[0].fixed for atom in atoms]
    # Of a dimension of 4, say, the order 0, 2, 1, 3 is a transpose as well.
    while any(_split_once(atom) for atom in settled(fixed)):
        pass
    factors = settled(fixed)
    indices = [piece.indices() for piece in pieces]
    if any(taken.keys() != {id(atom) for atom in factors} for taken in indices):
        return None
    strides: dict[int, int] = {}
    for position, taken in enumerate(indices):
        for atom in factors:
            if taken[id(atom)]:
                strides.setdefault(id(atom), position)
    if len(strides) != len(factors) or math.prod(atom.size for atom in factors) != len(pieces):
        return None
    factors.sort(key=lambda atom: -strides[id(atom)])
    for position, taken in enumerate(indices):
        for atom in reversed(factors):
            position, wanted = divmod(position, atom.size)
            if taken[id(atom)] != wanted:
                return None
    return factors


def _split_once(atom: Atom) -> bool:
    """Splits the smallest prime off."""
    prime = next((n for n in range(2, math.isqrt(atom.size) + 1) if atom.size % n == 0), None)
    if prime is None:
        return False
    atom.split(prime)
    return True


def _below_first(moves: Moves) -> Moves | None:
    """The moves with a dynamic dimension in front, which stays."""
    perm = None if moves.perm is None else (0, *(dim + 1 for dim in moves.perm))
    if perm is not None and len(perm) > MAX_TENSOR_DIMS:
        return None
    before, after = (
        None if shape is None else (0, *shape) for shape in (moves.before, moves.after)
    )
    return Moves(before, perm, after)
