"""What XNNPACK's own memory planning gets wrong, and how it is kept from mattering."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import GraphBuilder
from xnn_graphs import run

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind, ReshapeAttributes, TransposeAttributes
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine

Q = PerTensor(0.05, 3)
SIZES = (2, 1, 7, 3, 16, 1, 16)


def means(fixed_output: bool) -> XnnGraph:
    """Means over height and width, then (to an output whose shape never changes) over the batch."""
    b = GraphBuilder()
    x = b.input((16, 4, 4, 12), DataType.QINT8, Q)
    y = b.value((16, 1, 1, 12), DataType.QINT8, Q)
    b.node(NodeKind.GLOBAL_AVG_POOLING_2D, [x], [y], flags=0x40)
    if not fixed_output:
        b.node(NodeKind.ADD, [y, y], [b.output((16, 1, 1, 12), DataType.QINT8, Q)])
        return b.graph
    z = b.value((1, 16, 1, 12), DataType.QINT8, Q)
    b.node(NodeKind.STATIC_TRANSPOSE, [y], [z], attributes=TransposeAttributes((1, 0, 2, 3)))
    m = b.value((1, 1, 1, 12), DataType.QINT8, Q)
    b.node(NodeKind.GLOBAL_AVG_POOLING_2D, [z], [m], flags=0x40)
    out = b.output((12,), DataType.QINT8, Q)
    b.node(NodeKind.STATIC_RESHAPE, [m], [out], attributes=ReshapeAttributes((12,)))
    return b.graph


@pytest.mark.parametrize("fixed_output", [False, True])
def test_means_of_integers_at_growing_sizes(fixed_output: bool) -> None:
    graph = means(fixed_output)
    kept = XnnpackEngine().compile(graph, threads=Threads(1))
    for batch in SIZES:
        x = np.random.default_rng(batch).integers(-128, 128, (batch, 4, 4, 12), np.int8)
        (shape,) = kept.reshape([x.shape])
        found = np.empty(shape, np.int8)
        kept.run([x], [found])
        np.testing.assert_array_equal(found, run(graph, x)[0])


def test_a_copy_that_one_node_reads_twice() -> None:
    b = GraphBuilder()
    x = b.input((4, 8))
    y, copy, other = b.value((4, 8)), b.value((4, 8)), b.value((4, 8))
    b.node(NodeKind.ADD, [x, x], [y])
    b.node(NodeKind.ABS, [y], [other])
    b.node(NodeKind.COPY, [y], [copy])
    b.node(NodeKind.ADD, [copy, copy], [b.output((4, 8))])
    b.node(NodeKind.ADD, [other, other], [b.output((4, 8))])
    array = np.random.default_rng(0).uniform(-1, 1, (4, 8)).astype(np.float32)
    doubled, positive = run(b.graph, array)
    np.testing.assert_array_equal(doubled, 4 * array)
    np.testing.assert_array_equal(positive, 4 * np.abs(array))
