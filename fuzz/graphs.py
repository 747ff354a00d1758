"""Sound graphs with strange values: our kernels beside XNNPACK.

Mutated files are seldom sound. These are graphs of honest files with other attributes, ranges,
scales, constants, sizes, kinds of nodes and edges, of which only those are run that the checks let
pass: what our kernels take as one must still be what XNNPACK computes.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.corpus import LARGE, corpus
from fuzz.worker import check_message
from penstock.errors import InternalError, InvalidProgramError, PenstockError
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.graph.checks import check_graph
from penstock.graph.dtypes import PerTensor
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.graph.shapes import ShapeError, infer
from penstock.runtime.blocks import empty
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.planner import compile_graph
from penstock.runtime.engines.protocol import Engine
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

Array = np.ndarray[Any, np.dtype[Any]]

#: No value of a case has more elements, no input a longer dimension.
_ELEMENTS, _LENGTH = 1 << 18, 40
#: Answers in floating point may differ by so much of the largest; where a small change of the
#: inputs, :data:`_NUDGE` of them, changes XNNPACK's own as much, the difference means nothing.
_TOLERANCE, _NUDGE = 2e-3, 1e-5
#: Of some operands they are no number, which ranges and instruction sets treat differently.
_PARTIAL = {NodeKind.RECIPROCAL_SQUARE_ROOT, NodeKind.SQUARE_ROOT, NodeKind.LOG, NodeKind.DIV}
_LOW = (-math.inf, -6.0, -1.0, 0.0, 0.0, 0.25)
_HIGH = (math.inf, 6.0, 1.0, 0.5, 20.0)
_INTERCHANGEABLE = [
    kind
    for kind in NodeKind
    if kind.traits.elementwise and kind.traits.attributes is None and kind not in _PARTIAL
]


def seeds(folder: Path) -> list[tuple[str, XnnGraph]]:
    """The graphs of the small files of ``folder`` and of the tests, by the files' names."""
    found = []
    for seed in corpus(folder):
        if len(seed.program) < LARGE and seed.data_file is None:
            program = read_program(seed.program)
            for delegate in (d for method in program.methods for d in method.delegates):
                with contextlib.suppress(PenstockError):  # not of XNNPACK
                    found.append((seed.name, read_payload(delegate.payload, program.named_data)))
    return found


def graph_tries(folder: Path) -> Callable[[int], str]:
    """What tries a case: runs a mutated graph on our kernels and on XNNPACK, and compares."""
    honest, threads = seeds(folder), Threads(1)
    ours: list[Engine] = [NativeEngine(everything=True), XnnpackEngine()]
    theirs: list[Engine] = [XnnpackEngine()]

    def tries(number: int) -> str:
        generator = random.Random(number)
        name, seed = generator.choice(honest)
        graph, what = mutant(seed, generator)
        try:
            _settle_shapes(graph)
            check_graph(graph)
        except (ShapeError, InvalidProgramError):
            return "unsound"
        inputs = _inputs(graph, generator)
        found = _answers(graph, ours, threads, inputs)
        expected = _answers(graph, theirs, threads, inputs)
        if isinstance(found, str) or isinstance(expected, str):
            both = isinstance(found, str) and isinstance(expected, str)
            return "refused" if both else "refused by one"
        if any(not np.isfinite(one).all() for one in expected):
            return "not finite"
        worst = max(map(_difference, found, expected), default=0.0)
        if worst > _TOLERANCE:
            nudged = [_nudged(array) for array in inputs]
            other = _answers(graph, theirs, threads, nudged)
            assert not isinstance(other, str)
            if worst > 10 * max(map(_difference, other, expected)):
                raise AssertionError(f"{name}, {', '.join(what)}: differs by {worst:.3g}")
            return "ill-conditioned"
        return "ran"

    return tries


def mutant(seed: XnnGraph, generator: random.Random) -> tuple[XnnGraph, list[str]]:
    """A copy of ``seed`` with one to four changes, and what they are."""
    graph = XnnGraph(
        [copy.copy(value) for value in seed.values], [copy.copy(node) for node in seed.nodes],
        list(seed.inputs), list(seed.outputs),
    )  # fmt: skip
    what = []
    for _ in range(generator.choice((1, 1, 2, 2, 3, 4))):
        change = generator.choices(
            (_attributes, _range, _kind, _scale, _constant, _edge, _size, _output),
            (25, 13, 14, 12, 10, 12, 7, 7),
        )[0]
        said = change(graph, generator.choice(graph.nodes), generator)
        what += [said] if said else []
    return graph, what


def _integer(old: int, generator: random.Random) -> int:
    return max(0, generator.choice((old + 1, old - 1, 2 * old, old // 2, 0, 1, 2, 3, 5, 7)))


def _attributes(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    if node.attributes is None:
        return None
    name = generator.choice(fields(node.attributes)).name
    old: Any = getattr(node.attributes, name)
    new = old
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, int):
        new = _integer(old, generator)
    elif isinstance(old, float):
        new = generator.choice((2 * old, -old, 0.0, 1e-3, 1e3))
    elif isinstance(old, tuple) and old:
        items = list(old)
        at = generator.randrange(len(items))
        items[at] = _integer(items[at], generator)
        new = tuple(
            generator.choice((items, generator.sample(old, len(old)), [items[at]] * len(old)))
        )
    try:
        node.attributes = replace(node.attributes, **{name: new})
    except (TypeError, ValueError):
        return None
    return f"{node.kind.name}.{name} {new}"


def _range(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    if any(other.kind in _PARTIAL for other in graph.nodes):
        return None
    node.clamp = None
    if generator.random() < 0.8:
        node.clamp = generator.choice(_LOW), generator.choice(_HIGH)
    return f"{node.kind.name} in {node.clamp}"


def _kind(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    if node.kind not in _INTERCHANGEABLE:
        return None
    node.kind = generator.choice(
        [kind for kind in _INTERCHANGEABLE if kind.traits.inputs == len(node.inputs)]
    )
    return f"now {node.kind.name}"


def _scale(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    value = _near(graph, node, generator)
    if not isinstance(value.quantization, PerTensor):
        return None
    scale = value.quantization.scale * generator.choice((0.5, 2.0, 0.01, 100.0, 1.0))
    zero = value.quantization.zero_point + generator.choice((0, 1, -1, 50, -200))
    value.quantization = PerTensor(float(np.float32(scale)), max(-128, min(127, zero)))
    return f"{node.kind.name} {value.quantization}"


def _constant(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    value = _near(graph, node, generator)
    if value.data is None or value.dtype.traits.array != np.float32:
        return None
    array = np.frombuffer(np.asarray(value.data).tobytes(), np.float32).copy()
    how = generator.choice(("zeros", "scaled", "one extreme", "all equal"))
    if how == "zeros":
        array[:] = 0
    elif how == "scaled":
        array *= np.float32(generator.choice((1e-3, 100, -1)))
    elif how == "one extreme":
        array[generator.randrange(array.size)] = generator.choice((1e6, -1e6, 1e-40))
    else:
        array[:] = array[0]
    value.data = array.reshape(value.shape)
    return f"{node.kind.name} constant: {how}"


def _edge(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    """Another value of the same form, made before, at one of the node's inputs."""
    values = {value.id: value for value in graph.values}
    position = graph.nodes.index(node)
    before = [*graph.inputs, *(i for other in graph.nodes[:position] for i in other.outputs)]
    at = generator.randrange(len(node.inputs)) if node.inputs else 0
    old = values.get(node.inputs[at]) if node.inputs else None
    if old is None or old.data is not None:
        return None
    form = (old.dtype, len(old.shape), old.quantization)
    fitting = [
        i for i in before
        if (values[i].dtype, len(values[i].shape), values[i].quantization) == form
    ]  # fmt: skip
    if not fitting:
        return None
    node.inputs = (*node.inputs[:at], generator.choice(fitting), *node.inputs[at + 1 :])
    return f"{node.kind.name} input {at}"


def _size(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    value = graph.values[generator.choice(graph.inputs)] if graph.inputs else None
    if value is None or not value.shape:
        return None
    axis = generator.randrange(len(value.shape))
    length = min(_LENGTH, max(1, _integer(value.shape[axis], generator)))
    value.shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
    return f"input {value.shape}"


def _output(graph: XnnGraph, node: Node, generator: random.Random) -> str | None:
    """What a node makes leaves the graph, too: nothing may take it away."""
    values = {value.id: value for value in graph.values}
    value = values[generator.choice(node.outputs)]
    if value.is_output or value.dtype.traits.array is None:
        return None
    value.is_output, value.external_id = True, len(graph.inputs) + len(graph.outputs)
    graph.outputs.append(value.id)
    return f"{node.kind.name} given out"


def _near(graph: XnnGraph, node: Node, generator: random.Random) -> Value:
    """One of the values that ``node`` reads or makes."""
    values = {value.id: value for value in graph.values}
    return values[generator.choice([i for i in (*node.inputs, *node.outputs) if i in values])]


def _settle_shapes(graph: XnnGraph) -> None:
    """The shapes that follow from those of inputs and constants; ShapeError if none do."""
    shapes = {v.id: v.shape for v in graph.values if v.is_input or v.data is not None}
    try:
        infer(graph.nodes, shapes)
    except ZeroDivisionError as error:  # by attributes, which are checked after the shapes
        raise ShapeError(str(error)) from None
    for value in graph.values:
        value.shape = tuple(shapes.get(value.id, value.shape))
        if math.prod(value.shape) > _ELEMENTS:
            raise ShapeError(f"{value.shape} is too large to be tried")


def _inputs(graph: XnnGraph, generator: random.Random) -> list[Array]:
    values = {value.id: value for value in graph.values}
    numbers = np.random.default_rng(generator.randrange(1 << 30))
    found = []
    for value in (values[i] for i in graph.inputs):
        array = _block(value, value.shape)
        if array.dtype.kind == "f":
            array[...] = numbers.standard_normal(value.shape) * generator.choice((1, 1, 5, 0.01))
        else:
            array[...] = numbers.integers(-100, 100, value.shape).astype(array.dtype)
        found.append(array)
    return found


def _nudged(array: Array) -> Array:
    if array.dtype.kind != "f":
        return array
    other = empty(array.nbytes).view(array.dtype).reshape(array.shape)
    other[...] = array * (1 + _NUDGE * np.cos(np.arange(array.size)).reshape(array.shape))
    return other


def _block(value: Value, shape: Sequence[int]) -> Array:
    dtype = value.dtype.traits.array
    assert dtype is not None
    return empty(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def _answers(
    graph: XnnGraph, engines: Sequence[Engine], threads: Threads, inputs: Sequence[Array]
) -> list[Array] | str:
    """Of two runs, which must be the same; a text if the engines refuse the graph."""
    values = {value.id: value for value in graph.values}
    try:
        executable = compile_graph(graph, engines, threads=threads)
        shapes = executable.reshape([array.shape for array in inputs])
        runs = []
        for _ in range(2):
            outputs = [
                _block(values[i], shape) for i, shape in zip(graph.outputs, shapes, strict=True)
            ]
            executable.run(inputs, outputs)
            runs.append(outputs)
    except InternalError:
        raise
    except PenstockError as error:
        check_message(error)
        return str(error)
    assert all(map(_same, *runs)), "the second run differs"
    return runs[1]


def _same(first: Array, second: Array) -> bool:
    return first.tobytes() == second.tobytes() or np.array_equal(first, second, equal_nan=True)


def _difference(found: Array, expected: Array) -> float:
    """Of floats, as a part of the largest; of integers, infinite if by more than one."""
    assert found.shape == expected.shape, f"shapes {found.shape} and {expected.shape}"
    with np.errstate(all="ignore"):
        apart = np.abs(found.astype(np.float64) - expected).max(initial=0.0)
        if expected.dtype.kind != "f":
            return math.inf if apart > 1 else 0.0
        return float(apart / (np.abs(expected, dtype=np.float64).max(initial=0.0) + 1e-6))
