"""Which nodes of a graph our kernels get: the assignment with the least modelled time.

A node costs one engine more or less than the other, and a value that one engine makes and the other
reads costs a cut. The best of all assignments is a minimum cut between two terminals, ours and
XNNPACK's: Given a node that our kernels are 20 microseconds faster with, between two that they
cannot run, and cuts of 15 microseconds each → Result: it goes to XNNPACK.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

#: A node, or nodes that go together, by a number.
Vertex: TypeAlias = int

#: The terminals.
OURS, THEIRS = -1, -2
_NEVER = float("inf")
#: Less is not worth a cut.
_LEAST = 1e-9


class Network:
    """Directed edges with capacities; what flows is what a cut costs."""

    def __init__(self) -> None:
        self._rest: dict[int, dict[int, float]] = {OURS: {}, THEIRS: {}}

    def edge(self, start: Vertex, end: Vertex, cost: float) -> None:
        """To have ``start`` on our side and ``end`` on the other costs so much."""
        forward, backward = self._rest.setdefault(start, {}), self._rest.setdefault(end, {})
        forward[end] = forward.get(end, 0.0) + cost
        backward.setdefault(start, 0.0)

    def ours(self) -> set[Vertex]:
        """The vertices on our side of a cut of least cost, as few as there can be."""
        while True:
            levels = self._levels()
            if THEIRS not in levels:
                return set(levels)
            ends = {vertex: list(rest) for vertex, rest in self._rest.items()}
            while self._augmented(levels, ends):
                pass

    def _levels(self) -> dict[Vertex, int]:
        """How many edges with room lie between our terminal and each vertex that it reaches."""
        levels, queue = {OURS: 0}, deque([OURS])
        while queue:
            vertex = queue.popleft()
            for end, room in self._rest[vertex].items():
                if room > _LEAST and end not in levels:
                    levels[end] = levels[vertex] + 1
                    queue.append(end)
        return levels

    def _augmented(self, levels: Mapping[Vertex, int], ends: Mapping[Vertex, list[Vertex]]) -> bool:
        """Fills one path, level by level; false where none is left. ``ends`` loses what leads
        nowhere."""
        path = [OURS]
        while path[-1] != THEIRS:
            vertex = path[-1]
            while ends[vertex]:
                end = ends[vertex][-1]
                if self._rest[vertex][end] > _LEAST and levels.get(end) == levels[vertex] + 1:
                    path.append(end)
                    break
                ends[vertex].pop()
            else:
                path.pop()
                if not path:
                    return False
                ends[path[-1]].pop()
        steps = list(zip(path, path[1:], strict=False))
        room = min(self._rest[start][end] for start, end in steps)
        for start, end in steps:
            self._rest[start][end] -= room
            self._rest[end][start] += room
        return True


class Problem:
    """What assignments of ``vertices`` cost.

    Vertices with two neighbours or fewer, which is nearly all of a network, are taken out one by
    one: what they cost at best depends on where these are. :class:`Network` cuts the rest.
    """

    def __init__(self, vertices: Iterable[Vertex]) -> None:
        #: what each costs on our side, and what it costs if, of it and a neighbour, it alone is
        self._alone = dict.fromkeys(vertices, 0.0)
        self._apart: dict[Vertex, dict[Vertex, float]] = {vertex: {} for vertex in self._alone}
        self._next = 1 + max(self._alone, default=0)
        #: those that must not be on some side without another
        self._tied: set[Vertex] = set()

    def edge(self, start: Vertex, end: Vertex, cost: float) -> None:
        """To have ``start`` on our side and ``end`` on the other costs so much."""
        if start >= 0 and end >= 0:
            self._apart[start][end] = self._apart[start].get(end, 0.0) + cost
            self._apart[end].setdefault(start, 0.0)
        elif start >= 0 and end == THEIRS:
            self._alone[start] += cost
        elif end >= 0 and start == OURS:
            self._alone[end] -= cost

    def value(self, ends: Collection[Vertex], cost: float) -> None:
        """A value costs so much if those that make and read it are not all on one side."""
        if len(ends) < 2 or (OURS in ends and THEIRS in ends):
            return
        if len(ends) <= 3:  # of three, none or two pairs are apart
            for pair in itertools.permutations(ends, 2):
                self.edge(*pair, cost / (len(ends) - 1))
            return
        some_ours = OURS if OURS in ends else self._another()
        some_theirs = THEIRS if THEIRS in ends else self._another()
        self.edge(some_ours, some_theirs, cost)
        for end in ends:
            for tied in ((end, some_ours), (some_theirs, end)):
                self.edge(*tied, _NEVER)
                self._tied.update(tied)

    def ours(self) -> set[Vertex]:
        """The vertices on our side of a cut of least cost, as few as there can be."""
        taken = self._taken_out()
        network = Network()
        for vertex, near in self._apart.items():
            network.edge(OURS, vertex, max(-self._alone[vertex], 0.0))
            network.edge(vertex, THEIRS, max(self._alone[vertex], 0.0))
            for other, cost in near.items():
                network.edge(vertex, other, cost)
        found = network.ours()
        for vertex, here, sides in reversed(taken):
            there = -_LEAST
            for other, away, alone in sides:
                if other in found:
                    there += alone
                else:
                    here += away
            if here < there:
                found.add(vertex)
        return found

    def _another(self) -> Vertex:
        vertex = self._next
        self._next += 1
        self._alone[vertex], self._apart[vertex] = 0.0, {}
        return vertex

    def _taken_out(self) -> list[tuple[Vertex, float, list[tuple[Vertex, float, float]]]]:
        """Takes out vertices: in order, each with what it costs on our side, and for each neighbour
        left what it costs if it alone is there, and if the neighbour alone is."""
        alone, apart, taken = self._alone, self._apart, []
        queue = [vertex for vertex in apart if vertex not in self._tied]
        while queue:
            vertex = queue.pop()
            if vertex not in apart or len(apart[vertex]) > 2 or vertex in self._tied:
                continue
            here = alone[vertex]
            near = apart.pop(vertex)
            sides = [(other, away, apart[other].pop(vertex)) for other, away in near.items()]
            taken.append((vertex, here, sides))
            if len(sides) == 1:
                ((a, a_away, a_alone),) = sides
                alone[a] += min(a_alone, here) - min(0.0, here + a_away)
                queue.append(a)
            elif sides:
                (a, a_away, a_alone), (b, b_away, b_alone) = sides
                none, both = min(0.0, here + a_away + b_away), min(a_alone + b_alone, here)
                only_a, only_b = min(a_alone, here + b_away), min(b_alone, here + a_away)
                alone[a] += both - only_b
                alone[b] += only_b - none
                self.edge(a, b, max(only_a + only_b - none - both, 0.0))
                queue += (a, b)
        return taken


def assigned(
    gains: Sequence[float],
    values: Iterable[tuple[Vertex, Sequence[Vertex], float]],
) -> set[Vertex]:
    """The numbers of the nodes that are ours. ``gains`` has for each node what it saves there, in
    any unit of time; infinite for a node that has no choice. ``values`` are (maker, readers, cost
    of crossing)."""
    terminals = {_NEVER: OURS, -_NEVER: THEIRS}
    vertices = [terminals.get(gain, number) for number, gain in enumerate(gains)]
    problem = Problem(vertex for vertex in vertices if vertex >= 0)
    for vertex, gain in zip(vertices, gains, strict=True):
        problem.edge(OURS, vertex, gain)
    for maker, readers, cost in values:
        problem.value({vertices[maker], *(vertices[reader] for reader in readers)}, cost)
    found = problem.ours()
    return {number for number, vertex in enumerate(vertices) if vertex in found or vertex == OURS}
