"""Reshapes and transposes as permutations of the factors of dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.graph.graph import MAX_TENSOR_DIMS
from penstock.graph.kinds import NodeKind

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


def regrouped(atoms: Sequence[Atom], shape: Sequence[int]) -> list[list[Atom]] | None:
    """The atoms as dimensions of ``shape``, split where a dimension ends inside of one."""
    rest = settled(atoms)[::-1]
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


def settled(atoms: Sequence[Atom]) -> list[Atom]:
    """The atoms as they were split later, without those of size 1."""
    result: list[Atom] = []
    for atom in atoms:
        if atom.parts is not None:
            result += settled(atom.parts)
        elif atom.size > 1:
            result.append(atom)
    return result


def moves_between(
    source: tuple[int, ...],
    before: list[list[Atom]],
    after: list[list[Atom]],
    target: tuple[int, ...],
) -> Moves | None:
    """From ``source``, the dimensions of which are the atoms ``before``, to ``target``, of the
    atoms ``after``; None where it takes more dimensions than XNNPACK has."""
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
    return tuple(math.prod(atom.size for atom in group) for group in groups)


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
