"""What XNNPACK computes of small graphs, for kernels that shall give the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape, Value, XnnGraph
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


def computed(
    shapes: Sequence[Shape],
    nodes: Sequence[Node],
    inputs: Sequence[np.ndarray],
    constants: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """The last value of a float32 graph whose values have these ``shapes``: first ``inputs``, then
    ``constants``, then what ``nodes`` make."""
    first, last = len(inputs), len(shapes) - 1
    values = [
        Value(
            i,
            DataType.FP32,
            shape,
            data=constants[i - first] if first <= i < first + len(constants) else None,
            external_id=i if i < first else first if i == last else None,
            is_input=i < first,
            is_output=i == last,
        )
        for i, shape in enumerate(shapes)
    ]
    graph = XnnGraph(values=values, nodes=[*nodes], inputs=[*range(first)], outputs=[last])
    executable = XnnpackEngine().compile(graph, threads=Threads(1))
    executable.reshape([array.shape for array in inputs])
    found = np.empty(shapes[-1], np.float32)
    executable.run(inputs, [found])
    return found
