"""Runs small graphs, and quantizes what goes into them."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.graph.dtypes import PerTensor
from penstock.graph.graph import XnnGraph
from penstock.runtime.engines.threads import Threads
from penstock.runtime.engines.xnnpack.engine import XnnpackEngine


def run(
    graph: XnnGraph, *inputs: np.ndarray, threads: int = 1, engine: XnnpackEngine | None = None
) -> list[np.ndarray]:
    """Compile ``graph`` and run it once."""
    executable = (engine or XnnpackEngine()).compile(graph, threads=Threads(threads))
    shapes = executable.reshape([a.shape for a in inputs])
    values = {v.id: v for v in graph.values}
    outputs = [
        np.empty(shape, values[i].dtype.traits.array)
        for i, shape in zip(graph.outputs, shapes, strict=True)
    ]
    executable.run(inputs, outputs)
    return outputs


def quantize(real: np.ndarray, q: PerTensor, dtype: Any = np.int8) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.clip(np.rint(real / q.scale) + q.zero_point, info.min, info.max).astype(dtype)


def dequantize(array: np.ndarray, q: PerTensor) -> np.ndarray:
    return (array.astype(np.float64) - q.zero_point) * q.scale
