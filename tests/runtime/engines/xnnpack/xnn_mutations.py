"""Graphs that are damaged at random, and what becomes of them. Run as a program by the tests:
a crash ends a process, and that must not be the tests' own.

    python xnn_mutations.py FIRST COUNT

prints the last case before each is tried, so that a crash names its seed.
"""

from __future__ import annotations

import dataclasses
import math
import random
import sys
from collections import Counter
from typing import Any

import numpy as np
import xnn_samples

from penstock.errors import PenstockError
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, Value, XnnGraph
from penstock.graph.kinds import ConcatenateAttributes, NodeKind
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

INTEGERS = [0, 1, 2, 3, 7, 16, 33, 255, 4096, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
REALS = [0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, 1e-38, 3e38, 0.5]
#: Elements beyond which a case is not run, for time's sake.
MANY = 2_000_000


def damaged(rng: random.Random, graph: XnnGraph) -> XnnGraph:
    """A copy of ``graph`` with one to four changes."""
    copy = XnnGraph(
        [dataclasses.replace(v) for v in graph.values],
        [dataclasses.replace(n) for n in graph.nodes],
        list(graph.inputs),
        list(graph.outputs),
    )
    for _ in range(rng.choice([1, 1, 2, 4])):
        (_damage_value if rng.random() < 0.5 else _damage_node)(rng, copy)
    return copy


def _integer(rng: random.Random, old: int) -> int:
    return rng.choice([max(0, old + rng.choice([-2, -1, 1, 2])), 2 * old, rng.choice(INTEGERS)])


def _shape(rng: random.Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = list(shape) or [1]
    at = rng.randrange(len(sizes))
    change = rng.randrange(4)
    if change == 0:
        sizes.pop(at)
    elif change == 1:
        sizes.insert(at, rng.choice([1, 2, 7]))
    elif change == 2:
        rng.shuffle(sizes)
    else:
        sizes[at] = _integer(rng, sizes[at])
    return tuple(sizes)


def _fill(value: Value) -> None:
    """Give a constant the data that its new type and shape ask for."""
    elements = math.prod(value.shape)
    if value.data is not None and elements < MANY and value.dtype.traits.bits:
        value.data = bytes((elements * value.dtype.traits.bits + 7) // 8)
        q = value.quantization
        if isinstance(q, PerChannel) and q.axis < len(value.shape):
            scales = np.full(value.shape[q.axis], 0.01, np.float32)
            value.quantization = PerChannel(scales, q.axis)


def _damage_value(rng: random.Random, graph: XnnGraph) -> None:
    value = rng.choice(graph.values)
    change = rng.randrange(8)
    if change <= 2:
        old, value.shape = value.shape, _shape(rng, value.shape)
        for other in graph.values:
            if other.shape == old and other.data is None and rng.random() < 0.7:
                other.shape = value.shape
        _fill(value)
    elif change <= 4:
        old_type, new = value.dtype, rng.choice(list(DataType))
        for other in graph.values:
            if other is value or (other.dtype == old_type and change == 4):
                other.dtype, other.quantization = new, _quantization(rng, new, other)
                _fill(other)
    elif change == 5:
        value.quantization = _quantization(rng, rng.choice(list(DataType)), value)
    elif change == 6:
        value.external_id = rng.choice([None, 0, 1, 2, 4095, 4096, INVALID_VALUE_ID])
    else:
        value.is_input, value.is_output = rng.random() < 0.5, rng.random() < 0.5


def _quantization(rng: random.Random, dtype: DataType, value: Value) -> Any:
    if dtype in (DataType.QINT8, DataType.QUINT8, DataType.QINT32):
        return PerTensor(rng.choice([0.05, 0.05, *REALS]), rng.choice([0, 0, 3, -128, 255, 256]))
    if dtype in (DataType.QCINT8, DataType.QCINT32, DataType.QCINT4):
        axis = rng.randrange(4)
        size = value.shape[axis] if axis < len(value.shape) else 1
        return PerChannel(np.full(min(size, MANY), 0.01, np.float32), axis)
    if dtype == DataType.QDINT8:
        return PerToken(rng.randrange(5))
    if dtype == DataType.QBINT4:
        blocks = math.prod(value.shape) // 32
        return Blockwise(np.full(min(blocks, MANY), 0x3C00, np.uint16), 0, 32)
    return None


def _damage_node(rng: random.Random, graph: XnnGraph) -> None:
    node, ids = rng.choice(graph.nodes), [v.id for v in graph.values]
    change = rng.randrange(7)
    if change == 0:
        node.kind = rng.choice(list(NodeKind))
    elif change <= 3:
        node.attributes = _attributes(rng, node.attributes)
    elif change == 4:
        node.inputs = tuple(rng.choice([i, i, INVALID_VALUE_ID, *ids]) for i in node.inputs)
    elif change == 5:
        node.flags = rng.choice([0, 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x1000, 5])
    else:
        node.clamp = (rng.choice(REALS), rng.choice(REALS))
        node.outputs = tuple(rng.choice([i, i, *ids]) for i in node.outputs)


def _attributes(rng: random.Random, attributes: Any) -> Any:
    if attributes is None:
        return ConcatenateAttributes(0)
    name = rng.choice(dataclasses.fields(attributes)).name
    old = getattr(attributes, name)
    new: Any = rng.choice(REALS)
    if isinstance(old, int):
        new = rng.choice([_integer(rng, old), -1, -9])
    elif isinstance(old, tuple):
        at = rng.randrange(len(old))
        new = (*old[:at], _integer(rng, old[at]), *old[at + 1 :])
        new = rng.choice([new, new, new, new[:-1], (*new, 1)])
    return dataclasses.replace(attributes, **{name: new})


def attempt(rng: random.Random, graph: XnnGraph, engine: XnnpackEngine) -> str:
    """Compile and run at the declared shapes and at smaller ones; what came of it."""
    executable = engine.compile(graph, threads=Threads(1))
    values = {v.id: v for v in graph.values}
    shapes = [values[i].shape for i in graph.inputs]
    for _ in range(2):
        if sum(map(math.prod, shapes)) > MANY:
            return "large"
        results = executable.reshape(shapes)
        if sum(map(math.prod, results)) > MANY:
            return "large"
        noise = np.random.default_rng(rng.randrange(1 << 30))
        inputs = [
            noise.integers(0, 256, (*shape, values[i].dtype.traits.array.itemsize), np.uint8)
            .view(values[i].dtype.traits.array)
            .reshape(shape)
            for i, shape in zip(graph.inputs, shapes, strict=True)
        ]
        outputs = [
            np.empty(shape, values[i].dtype.traits.array)
            for i, shape in zip(graph.outputs, results, strict=True)
        ]
        executable.run(inputs, outputs)
        shapes = [tuple(max(1, n - rng.choice([0, 0, 1, 2])) for n in s) for s in shapes]
    return "ran"


def main(first: int, count: int) -> None:
    engine, samples = XnnpackEngine(), list(xnn_samples.SAMPLES.values())
    results: Counter[str] = Counter()
    for seed in range(first, first + count):
        print(f"\rseed {seed}", end="", flush=True)
        rng = random.Random(seed)
        graph = damaged(rng, rng.choice(samples)[0])
        try:
            results[attempt(rng, graph, engine)] += 1
        except PenstockError as error:
            assert "\n" not in str(error), error
            results[type(error).__name__] += 1
    print(f"\n{dict(results)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
