"""Which nodes of a graph our kernels get: the assignment with the least modelled time.

A node costs one engine more or less than the other, and a value that one engine makes and the other
reads costs a cut. The best of all assignments is a minimum cut between two terminals, ours and
XNNPACK's: Given a node that our kernels are 20 microseconds faster with, between two that they
cannot run, and cuts of 15 microseconds each → Result: it goes to XNNPACK.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

#: A node, or nodes that go together, by a number.
Vertex: TypeAlias = int

#: The terminals.
OURS, THEIRS = -1, -2
_NEVER = float("inf")


class Network:
    """Directed edges with capacities; what flows is what a cut costs."""

    def __init__(self) -> None:
        self._rest: dict[int, dict[int, float]] = {OURS: {}, THEIRS: {}}
        self._next = -3

    def edge(self, start: Vertex, end: Vertex, cost: float, back: float = 0.0) -> None:
        """To have ``start`` on our side and ``end`` on the other costs so much, and the reverse
        ``back``."""
        if start == end:
            return
        forward, backward = self._rest.setdefault(start, {}), self._rest.setdefault(end, {})
        forward[end] = forward.get(end, 0.0) + cost
        backward[start] = backward.get(start, 0.0) + back

    def value(self, maker: Vertex, readers: Iterable[Vertex], cost: float) -> None:
        """A value costs once if any of its readers is on the other side than its maker."""
        others = {reader for reader in readers if reader != maker}
        if len(others) == 1:
            self.edge(maker, others.pop(), cost, cost)
        elif others:
            some_theirs, some_ours = self._next, self._next - 1
            self._next -= 2
            self.edge(maker, some_theirs, cost)
            self.edge(some_ours, maker, cost)
            for reader in others:
                self.edge(some_theirs, reader, _NEVER)
                self.edge(reader, some_ours, _NEVER)

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
                if room > 1e-9 and end not in levels:
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
                if self._rest[vertex][end] > 1e-9 and levels.get(end) == levels[vertex] + 1:
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


def assigned(
    gains: Sequence[float],
    values: Iterable[tuple[Vertex, Sequence[Vertex], float]],
) -> set[Vertex]:
    """The numbers of the nodes that are ours. ``gains`` has for each node what it saves there, in
    any unit of time; infinite for a node that has no choice. ``values`` are (maker, readers, cost
    of crossing)."""
    network, terminals = Network(), {_NEVER: OURS, -_NEVER: THEIRS}
    vertices = [terminals.get(gain, number) for number, gain in enumerate(gains)]
    for vertex, gain in zip(vertices, gains, strict=True):
        if vertex >= 0:
            network.edge(OURS, vertex, max(gain, 0.0))
            network.edge(vertex, THEIRS, max(-gain, 0.0))
    for maker, readers, cost in values:
        network.value(vertices[maker], [vertices[reader] for reader in readers], cost)
    found = network.ours()
    return {number for number, vertex in enumerate(vertices) if vertex in found}
