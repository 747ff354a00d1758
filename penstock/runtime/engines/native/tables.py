"""The tables of chains, by XNNPACK itself, so that the answers are its own.

A runtime of XNNPACK's costs more than what it computes, so all chains of a graph go into one. What
chains compute alike in float32 (the SiLUs of a network) goes into it once, over the bytes of all.
The conversions at both ends are then NumPy's; one chain of them goes whole, to be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native import lookup
from penstock.runtime.engines.native.family import Family, Values, Workshop
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.lookup import Chain, LookUp
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

_Key: TypeAlias = "tuple[object, ...]"
_BYTES = np.arange(256, dtype=np.uint8).view(np.int8)
#: Fewer chains that are alike are not worth it.
_FEW = 4


@dataclass(frozen=True, eq=False)
class Tabled:
    """A chain with its table: what it makes of the bytes 0 to 255, uint8 [256]."""

    nodes: tuple[Node, ...]
    start: int
    end: int
    table: np.ndarray
    gain: float | None = None

    @property
    def family(self) -> Family:
        """See :class:`~penstock.runtime.engines.native.chains.Chain`."""
        return lookup.FAMILY

    def slower(self, library: Library) -> str | None:
        """See :class:`~penstock.runtime.engines.native.chains.Chain`."""
        return lookup.slower_chain(library)

    def packed(self, workshop: Workshop) -> LookUp:
        """The chain to be run."""
        return LookUp(self.start, self.end, workshop.packed.keep(self.table.copy()), workshop)


class Tables:
    """The tables of chains. They are made for all chains of a graph at once, since a runtime of
    XNNPACK's costs more than what it computes, and kept for chains that are alike."""

    def __init__(self) -> None:
        self._known: dict[_Key, np.ndarray] = {}
        self._xnnpack: XnnpackEngine | None = None

    def of(self, graph: XnnGraph, found: Sequence[Chain]) -> list[Tabled]:
        """The chains ``found`` in ``graph``, with their tables."""
        if not found:
            return []
        values = {value.id: value for value in graph.values}
        keys = [_key(graph, values, chain) for chain in found]
        missing = {key: chain for key, chain in zip(keys, found, strict=True)
                   if key not in self._known}  # fmt: skip
        if missing:
            self._xnnpack = self._xnnpack or XnnpackEngine()
            made = _computed(graph, values, list(missing.values()), self._xnnpack)
            self._known.update(zip(missing, made, strict=True))
        return [
            Tabled(
                tuple(graph.nodes[n] for n in chain.nodes), chain.start, chain.end, self._known[key]
            )
            for chain, key in zip(found, keys, strict=True)
        ]


def _key(graph: XnnGraph, values: Values, chain: Chain) -> _Key:
    """What the table of a chain depends on."""
    ids: dict[int, int] = {}
    described: list[object] = []
    for position in chain.nodes:
        node = graph.nodes[position]
        described.append((node.kind, node.attributes, node.clamp, node.flags))
        for i in (*node.inputs, *node.outputs):
            if i in ids:
                described.append(ids[i])
                continue
            ids[i] = len(ids)
            value = values[i]
            data = None if value.data is None else bytes(value.data)
            described.append((value.dtype, value.quantization, len(value.shape), data))
    return tuple(described)


def _computed(
    graph: XnnGraph, values: Values, found: Sequence[Chain], xnnpack: XnnpackEngine
) -> list[np.ndarray]:
    """The tables of ``found``."""
    groups: dict[_Key, list[tuple[int, Chain]]] = {}
    for number, chain in enumerate(found):
        core = _core(graph, values, chain)
        if core is not None:
            groups.setdefault(_key(graph, values, core), []).append((number, core))
    alike = [members for members in groups.values() if len(members) >= _FEW]
    later = {number for members in alike for number, _ in members[1:]}
    whole = [number for number in range(len(found)) if number not in later]
    reals = [_real(values, [found[n].start for n, _ in members]) for members in alike]
    jobs = [(found[number], _BYTES) for number in whole]
    jobs += [(members[0][1], real) for members, real in zip(alike, reals, strict=True)]
    answers = _run(graph, values, jobs, xnnpack)
    tables = {n: answer.view(np.uint8) for n, answer in zip(whole, answers, strict=False)}
    again: list[int] = []
    for members, answer in zip(alike, answers[len(whole) :], strict=True):
        numbers = [number for number, _ in members]
        ends = [found[number].end for number in numbers]
        made = _quantized(values, ends, answer.reshape(-1, 256))
        if np.isfinite(answer).all() and np.array_equal(made[0], tables[numbers[0]]):
            tables.update(zip(numbers, made, strict=True))
        else:
            again += numbers[1:]
    if again:
        jobs = [(found[number], _BYTES) for number in again]
        answers = _run(graph, values, jobs, xnnpack)
        tables.update(zip(again, (answer.view(np.uint8) for answer in answers), strict=True))
    return [tables[number] for number in range(len(found))]


def _core(graph: XnnGraph, values: Values, chain: Chain) -> Chain | None:
    """What lies between the conversions at both ends of a chain, if all of it is float32."""
    if len(chain.nodes) < 3:
        return None
    first, *between, last = (graph.nodes[position] for position in chain.nodes)
    ends = (first, last)
    if any(node.kind is not NodeKind.CONVERT or node.clamp or node.flags for node in ends):
        return None
    used = {i for node in between for i in (*node.inputs, *node.outputs)} - {INVALID_VALUE_ID}
    start, end = first.outputs[0], last.inputs[0]
    if not {start, end} <= used or first.inputs[0] != chain.start or last.outputs[0] != chain.end:
        return None
    if any(values[i].dtype is not DataType.FP32 for i in used):
        return None
    return Chain(chain.nodes[1:-1], start, end)


def _parameters(values: Values, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The scales, float32, and the zero points, int32, of int8 values: a column each."""
    found = [values[i].quantization for i in ids]
    pairs = [(q.scale, q.zero_point) for q in found if isinstance(q, PerTensor)]
    scales, zeros = zip(*pairs, strict=True)
    return np.array(scales, np.float32)[:, None], np.array(zeros, np.int32)[:, None]


def _real(values: Values, ids: Sequence[int]) -> np.ndarray:
    """What the bytes 0 to 255 stand for in each of these values, one after the other."""
    scales, zeros = _parameters(values, ids)
    found: np.ndarray = (_BYTES.astype(np.float32) - zeros.astype(np.float32)) * scales
    return found.reshape(-1)


def _quantized(values: Values, ids: Sequence[int], reals: np.ndarray) -> np.ndarray:
    """Each row of ``reals`` as the bytes of one of these values; as XNNPACK quantizes, with a
    rounded inverse."""
    scales, zeros = _parameters(values, ids)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(reals * (np.float32(1) / scales))
        low, high = (-128 - zeros).astype(np.float32), (127 - zeros).astype(np.float32)
        steps = np.clip(np.nan_to_num(steps), low, high)
    found: np.ndarray = (steps.astype(np.int32) + zeros).astype(np.int8).view(np.uint8)
    return found


def _run(
    graph: XnnGraph,
    values: Values,
    jobs: Sequence[tuple[Chain, np.ndarray]],
    xnnpack: XnnpackEngine,
) -> list[np.ndarray]:
    """What each chain makes of an array."""
    whole = XnnGraph(checked=True)  # its nodes are copies of what has been checked
    for number, (chain, array) in enumerate(jobs):
        _add(whole, graph, values, chain, array.size, number, len(jobs) + number)
    executable = xnnpack.compile(whole, threads=Threads(1))
    shapes = {value.id: value.shape for value in whole.values}
    inputs = [a.reshape(shapes[i]) for i, (_, a) in zip(whole.inputs, jobs, strict=True)]
    answers = [np.empty_like(array) for array in inputs]
    executable.reshape([array.shape for array in inputs])
    executable.run(inputs, answers)
    return [answer.reshape(-1) for answer in answers]


def _add(
    whole: XnnGraph,
    graph: XnnGraph,
    values: Values,
    chain: Chain,
    size: int,
    source: int,
    result: int,
) -> None:
    """Add a copy of ``chain`` over ``size`` elements to ``whole``, with the external ids ``source``
    and ``result``."""
    nodes = [graph.nodes[position] for position in chain.nodes]
    used = dict.fromkeys(i for node in nodes for i in (*node.inputs, *node.outputs) if i in values)
    new = {old: len(whole.values) + number for number, old in enumerate(used)}
    for old, number in new.items():
        value = values[old]
        is_input, is_output = old == chain.start, old == chain.end
        external = source if is_input else result if is_output else None
        shape = value.shape if value.data is not None else (*(1,) * (len(value.shape) - 1), size)
        whole.values.append(
            Value(
                number,
                value.dtype,
                shape,
                value.quantization,
                value.data,
                external,
                is_input,
                is_output,
            )
        )
    for node in nodes:
        inputs = tuple(new.get(i, i) for i in node.inputs)
        outputs = tuple(new[i] for i in node.outputs)
        whole.nodes.append(
            Node(node.kind, inputs, outputs, node.attributes, node.clamp, node.flags)
        )
    whole.inputs.append(new[chain.start])
    whole.outputs.append(new[chain.end])
