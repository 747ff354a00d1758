"""Nodes that an engine runs together with others: whose time theirs is in."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from penstock.graph.graph import Node
from penstock.graph.kinds import NodeKind

#: What costs nothing where an engine has no operator for it: memory under another shape or name.
_IN_PLACE = (NodeKind.STATIC_RESHAPE, NodeKind.COPY)


def carriers(nodes: Sequence[Node], timed: Collection[int]) -> dict[int, int | None]:
    """For the position of each node that has no time of its own (``timed`` has those that do) the
    node in whose time it is: the producer for an output range; else the next reader that has a
    time (a conversion that a product makes while it packs its input, padding, a chain that became
    one table), or the producer where there is none. None for what is no work, and where nobody
    can be named."""
    producer = {value: position for position, node in enumerate(nodes) for value in node.outputs}
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(nodes):
        for value in node.inputs:
            readers.setdefault(value, []).append(position)

    def ahead(position: int) -> int | None:
        seen: set[int] = set()
        waiting = [position]
        while waiting:
            here = waiting.pop(0)
            for value in nodes[here].outputs:
                for reader in readers.get(value, ()):
                    if reader in timed:
                        return reader
                    if reader not in seen:
                        seen.add(reader)
                        waiting.append(reader)
        return None

    def behind(position: int) -> int | None:
        here = producer.get(nodes[position].inputs[0])
        while here is not None and here not in timed:
            here = producer.get(nodes[here].inputs[0])
        return here

    found: dict[int, int | None] = {}
    for position, node in enumerate(nodes):
        if position in timed:
            continue
        if node.kind in _IN_PLACE:
            found[position] = None
        elif node.kind is NodeKind.CLAMP and behind(position) is not None:
            found[position] = behind(position)
        else:
            reader = ahead(position)
            found[position] = behind(position) if reader is None else reader
    return found
