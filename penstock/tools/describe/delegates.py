"""Delegates of a method, described; those of XNNPACK with their nodes and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from penstock.errors import (
    BackendUnavailableError,
    InputError,
    InvalidProgramError,
    UnsupportedError,
)
from penstock.formats.payload_reader import read_payload
from penstock.formats.program import XNNPACK_BACKEND, Buffer, Delegate
from penstock.formats.sources import Origin
from penstock.graph.graph import INVALID_VALUE_ID, Node, XnnGraph
from penstock.runtime.engines.named import engines_named
from penstock.runtime.engines.planner import choose
from penstock.tools.describe.values import ValueDescription, graph_value

#: The origin of a node by its debug handle.
OriginOf = Callable[[int], Origin]


@dataclass(frozen=True)
class NodeDescription:
    """A node of XNNPACK's, at ``position`` of the payload.

    ``inputs`` and ``outputs`` are numbers of values of the delegate; an absent bias is left out.
    ``clamp`` is (min, max), None where there is none; ``engine`` is what would run the node on this
    machine, empty where that is not known.
    """

    position: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    clamp: tuple[float | None, float | None] | None = None
    flags: int = 0
    origin: Origin = Origin()
    engine: str = ""


@dataclass(frozen=True)
class DelegateDescription:
    """A delegate. What backend other than XNNPACK's is in it only that backend knows, so that there
    are no nodes; nor are there where ``error`` says why the payload cannot be read.

    ``inputs`` and ``outputs`` are the positions among a call's arguments of the payload's own, in
    the order of its external values.
    """

    number: int
    backend: str
    bytes: int
    compile_specs: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[NodeDescription, ...] = ()
    values: tuple[ValueDescription, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether what is in it is known."""
        return self.backend == XNNPACK_BACKEND and not self.error


@dataclass(frozen=True)
class OpenDelegate:
    """A delegate with its graph, None where it cannot be read."""

    description: DelegateDescription
    graph: XnnGraph | None = None


def describe_delegate(
    number: int, delegate: Delegate, named_data: Mapping[str, Buffer], origin_of: OriginOf
) -> OpenDelegate:
    """Delegate ``number`` of a method. A damaged payload, or one whose constants are in a data file
    that was not given, is described as far as it goes."""
    found = DelegateDescription(
        number,
        delegate.id,
        len(delegate.payload),
        {spec.key: len(spec.value) for spec in delegate.compile_specs},
    )
    if delegate.id != XNNPACK_BACKEND:
        return OpenDelegate(found)
    try:
        graph = read_payload(delegate.payload, named_data)
    except (InputError, InvalidProgramError, UnsupportedError) as error:
        return OpenDelegate(replace(found, error=" ".join(str(error).split())))
    engines = _engines(graph)
    position = {value.id: value.external_id for value in graph.values}
    described = replace(
        found,
        kinds=dict(Counter(node.kind.name.lower() for node in graph.nodes).most_common()),
        nodes=tuple(
            _node(place, node, origin_of, engine)
            for place, (node, engine) in enumerate(zip(graph.nodes, engines, strict=True))
        ),
        values=tuple(graph_value(value) for value in graph.values),
        inputs=tuple(position[value] or 0 for value in graph.inputs),
        outputs=tuple(position[value] or 0 for value in graph.outputs),
    )
    return OpenDelegate(described, graph)


def _node(place: int, node: Node, origin_of: OriginOf, engine: str) -> NodeDescription:
    clamp = None
    if node.clamp is not None:
        low, high = node.clamp
        clamp = (None if low == -_INFINITY else low, None if high == _INFINITY else high)
    return NodeDescription(
        place,
        node.kind.name.lower(),
        tuple(value for value in node.inputs if value != INVALID_VALUE_ID),
        tuple(node.outputs),
        {} if node.attributes is None else asdict(node.attributes),
        clamp,
        node.flags,
        origin_of(node.debug_handle),
        engine,
    )


_INFINITY = float("inf")


def _engines(graph: XnnGraph) -> Sequence[str]:
    """The name of the engine that would run each node here; empty names where there is none."""
    try:
        engines = engines_named("auto")
        # XNNPACK's is the last one, which runs what no other takes.
        names = ["native"] * (len(engines) - 1) + ["xnnpack"]
        return [names[number] for number in choose(graph, engines)]
    except (BackendUnavailableError, InputError, InvalidProgramError):
        return [""] * len(graph.nodes)
