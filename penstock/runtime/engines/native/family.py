"""What a family of kernels offers to the engine: which nodes it can run, and how to run one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape, Value
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.library import Library, Prototype
from penstock.runtime.engines.native.memory import PackedWeights

Values: TypeAlias = "Mapping[int, Value]"


@dataclass(frozen=True)
class Step:
    """A call of a kernel at certain shapes: ``function(task, pool)``.

    ``fields`` names, for the ids of the node's values that are not constants, the pointer in
    ``task`` that is to hold the value's address. ``scratch`` bytes are handed over in the pointer
    ``scratch`` of ``task``, if they are not 0. ``sizes``: the bytes of values that have a form of
    the family's own, which stay between its nodes. ``over``: the output, and the input of the same
    size that it may be written over, element by element; ``same``: the output, and the input whose
    very bytes it has.
    """

    function: str
    task: ctypes.Structure
    fields: tuple[tuple[int, str], ...]
    scratch: int = 0
    sizes: Mapping[int, int] = field(default_factory=dict)
    over: tuple[int, int] | None = None
    same: tuple[int, int] | None = None


class Prepared(Protocol):
    """A node whose weights are packed."""

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """The call at ``shapes``, which has those of all values and has been checked; none of them
        is empty."""


@dataclass(frozen=True)
class Workshop:
    """What a node is prepared with. ``zeros(size)`` is the address of so many bytes of zeros,
    ``threads`` the number of threads that kernels run on."""

    library: Library
    packed: PackedWeights
    zeros: Callable[[int], int]
    threads: int

    def constant(self, value: Value) -> np.ndarray:
        """The elements of a constant as they lie in memory, flat bytes, aligned for its type."""
        return self.packed.source(value)

    def constant_at(self, value: Value) -> int:
        """The address of what :meth:`constant` gives."""
        return self.packed.source_at(value)


#: Packs the weights of a node.
Packer: TypeAlias = "Callable[[Workshop], Prepared]"


@dataclass(frozen=True)
class Family:
    """A family of kernels, ``pk_<name>_*`` in the library.

    ``kinds`` are those of its nodes. ``examine`` gives what packs the weights of a node of such a
    kind, or the reason why the family cannot run it; ``slower`` says why another engine should have
    a node all the same, on the library's instruction sets. ``prototypes`` are those of the C
    functions that packing calls. ``overread``: its kernels may read up to ``OVERREAD`` bytes beyond
    the end of an input. ``gain``: the microseconds that a node saves here, to be weighed against
    cuts of the graph; where it is None, ``slower`` alone decides.
    """

    name: str
    kinds: frozenset[NodeKind]
    examine: Callable[[Node, Values], Packer | str]
    slower: Callable[[Node, Values, Library], str | None]
    prototypes: Mapping[str, Prototype]
    overread: bool = False
    gain: Callable[[Node, Values, Library], float | None] = lambda *_: None


def bias_of(node: Node, values: Values) -> Value | None:
    """The bias of a product; None if it has none."""
    if len(node.inputs) < 3 or node.inputs[2] == INVALID_VALUE_ID:
        return None
    return values[node.inputs[2]]
