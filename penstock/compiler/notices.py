"""What a compile has to say that is no error: for people, who may want to change something."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.group import Delegate
from penstock.compiler.delegate.operators.constraints import is_constant
from penstock.compiler.fx import origins
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import operator_name
from penstock.compiler.fx.marks import MADE, Made
from penstock.compiler.fx.model_size import Weights
from penstock.formats import program as pte
from penstock.formats.blobs import Blobs
from penstock.graph.dtypes import DataType
from penstock.graph.graph import Value

#: Constants of the compiler's own that need no notice: so much, and this part of the weights.
FREE_BYTES = 2**20
FREE_SHARE = 0.1
#: So many operators are named, each at least this part of the whole.
WORTH_NAMING = 0.01
MOST_NAMED = 4
FLOATS = {DataType.FP32, DataType.FP16, DataType.BF16}


@dataclass(frozen=True)
class Notice:
    """``kind`` for programs, ``text`` for people: what is so, which operators it comes from."""

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


CONSTANTS = "constants"
NAMES = "unused names"
CALIBRATION = "calibration"
STATE = "state"


def of_state(names: Sequence[str]) -> tuple[Notice, ...]:
    """One where a model remembers something in plain attributes of these names."""
    if not names:
        return ()
    listed = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
    text = (
        f"the model stores values in {listed} as it runs; the program does not, each of its calls "
        "begins with what was there when it was compiled. It keeps what is written into buffers "
        "(register_buffer)"
    )
    return (Notice(STATE, text),)


@dataclass(frozen=True)
class Share:
    """The bytes of constants that stand for an operator and are not weights."""

    operator: str
    place: str
    bytes: int


class Ledger:
    """Whose the constants of a program are: entered graph by graph while it is made."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._shares: list[Share] = []
        self._in_delegates: list[Value] = []
        #: The constants that delegates read: where they lie in memory, and the shapes of those
        #: that were quantized, which lie elsewhere.
        self._places: set[int] = set()
        self._quantized: set[tuple[int, ...]] = set()

    def enter_delegates(
        self, module: GraphModule, groups: Sequence[Sequence[Node]], lowered: Sequence[Delegate]
    ) -> None:
        """The constants of all groups of a graph, before calls take their place in it."""
        for group, delegate in zip(groups, lowered, strict=True):
            held = [value for value in delegate.graph.values if value.data is not None]
            self._in_delegates += held
            self._shares += _shares(module, group, delegate)
            for node in group:
                for constant in _constants(node):
                    tensor = attribute(module, str(constant.target))
                    self._places.add(tensor.data_ptr())
                    if not tensor.is_floating_point():
                        self._quantized.add(tuple(tensor.shape))

    def enter_kernels(self, module: GraphModule) -> None:
        """The constants for operators outside of delegates that the compiler computed, and those
        that are in the file a second time, since delegates keep their weights apart and in another
        order. After all graphs' delegates."""
        for node in module.graph.nodes:
            if (
                node.op != "get_attr"
                or not node.users
                or not isinstance(node.meta.get("val"), torch.Tensor)
            ):
                continue
            made: Made | None = node.meta.get(MADE)
            tensor = attribute(module, str(node.target))
            size = tensor.numel() * tensor.element_size()
            if made is not None:
                self._shares.append(Share(made.operator, made.place, size - made.source_bytes))
            elif tensor.data_ptr() in self._places or tuple(tensor.shape) in self._quantized:
                reader = next(iter(node.users))
                name = f"a weight that {operator_name(reader)} and XNNPACK both read"
                self._shares.append(Share(name, origins.describe_origin(reader), size))

    def notices(self, program: pte.Program) -> tuple[Notice, ...]:
        """One where the program holds more than the weights, a tenth of them and 1 MB.

        Integers in delegates are weights that were quantized; the rest of the weights is taken to
        be as large as it was."""
        pieces = Blobs()  # the file has equal ones once
        for data in program.named_data.values():
            pieces.add(data)
        for method in program.methods:
            for value in method.values:
                if isinstance(value, pte.Tensor) and value.data is not None:
                    pieces.add(value.data)
        held = sum(map(len, pieces.pieces))
        weights = self._weights
        quantized = [value for value in self._in_delegates if value.dtype not in FLOATS]
        elements = sum(math.prod(value.shape) for value in quantized)
        unchanged = max(0.0, 1 - elements / max(weights.elements, 1))
        extra = held - sum(map(_stored, quantized)) - unchanged * weights.bytes
        if extra <= FREE_BYTES + FREE_SHARE * weights.bytes:
            return ()
        return (Notice(CONSTANTS, _text(int(extra), weights, self._shares)),)


def _shares(module: GraphModule, group: Sequence[Node], lowered: Delegate) -> Iterator[Share]:
    """What each node of a group adds: the constants of its nodes in the delegate, less those that
    it has in the model."""
    graph = lowered.graph
    sizes: dict[int, int] = {}
    seen: set[int] = set()
    for node in graph.nodes:
        for place in node.inputs:
            value = graph.values[place] if place < len(graph.values) else None
            if value is None or value.data is None or place in seen:
                continue
            seen.add(place)
            if value.dtype in FLOATS:
                handle = node.debug_handle
                sizes[handle] = sizes.get(handle, 0) + _stored(value)
    for handle, size in sizes.items():
        if 1 <= handle <= len(group):
            yield _share(module, group[handle - 1], size)


def _stored(value: Value) -> int:
    """Bytes of a constant."""
    data = value.data
    if data is None:
        return 0
    return data.nbytes if isinstance(data, np.ndarray) else len(data)


def _share(module: GraphModule, node: Node, size: int) -> Share:
    own = 0
    made: Made | None = None
    for constant in _constants(node):
        tensor = attribute(module, str(constant.target))
        whole = tensor.numel() * tensor.element_size()
        folded: Made | None = constant.meta.get(MADE)
        own += whole if folded is None else folded.source_bytes
        if folded is not None and 2 * (whole - folded.source_bytes) > size:
            made = folded
    if made is not None:
        return Share(made.operator, made.place, size - own)
    return Share(operator_name(node), origins.describe_origin(node), size - own)


def _constants(node: Node) -> Iterator[Node]:
    """The parameters, buffers and other constants that ``node`` reads."""
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            yield source
        elif is_constant(source):
            yield from _constants(source)


def _text(extra: int, weights: Weights, found: Iterable[Share]) -> str:
    by_operator: dict[str, list[Share]] = {}
    for share in found:
        if share.bytes > WORTH_NAMING * extra:
            by_operator.setdefault(share.operator, []).append(share)
    ordered = sorted(by_operator.items(), key=lambda item: -sum(one.bytes for one in item[1]))
    named = [_named(operator, items) for operator, items in ordered[:MOST_NAMED]]
    if len(ordered) > MOST_NAMED:
        named.append(f"{len(ordered) - MOST_NAMED} kinds more")
    for_what = f": {'; '.join(named)}" if named else ""
    return (
        f"the file holds {_megabytes(extra)} of constants that the compiler added to the model's "
        f"{_megabytes(weights.bytes)}{for_what}"
    )


def _named(operator: str, items: Sequence[Share]) -> str:
    largest = max(items, key=lambda one: one.bytes)
    times = f" x {len(items)}" if len(items) > 1 else ""
    return f"{operator}{times} {_megabytes(sum(one.bytes for one in items))}{largest.place}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
