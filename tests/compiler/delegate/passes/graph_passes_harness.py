"""Applies one pass to a small graph and checks that the answer stays the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from xnn_graphs import run

from penstock.graph import clean_up
from penstock.graph.checks import check_graph
from penstock.graph.dtypes import DataType
from penstock.graph.graph import XnnGraph


def answers(graph: XnnGraph) -> list[np.ndarray]:
    """The graph's outputs on random inputs."""
    generator = np.random.default_rng(0)
    inputs = []
    for id in graph.inputs:
        value = graph.values[id]
        if value.dtype is DataType.FP32:
            inputs.append(generator.standard_normal(value.shape).astype(np.float32))
        else:
            inputs.append(generator.integers(-128, 128, value.shape).astype(np.int8))
    return run(graph, *inputs)


def after(graph: XnnGraph, apply: Callable[[XnnGraph], None], tolerance: float = 1e-5) -> XnnGraph:
    """The graph after ``apply``, whose answer must be the same to ``tolerance`` of its range
    (integers: the same)."""
    graph = clean_up.renumbered(graph)
    expected = answers(graph)
    changed = copy.copy(graph)
    changed.values = [replace(value) for value in graph.values]
    changed.nodes = [replace(node) for node in graph.nodes]
    apply(changed)
    clean_up.remove_dead(changed)
    changed = clean_up.renumbered(changed)
    check_graph(changed)
    for before, now in zip(expected, answers(changed), strict=True):
        if before.dtype == np.int8:
            np.testing.assert_array_equal(now, before)
        else:
            np.testing.assert_allclose(
                now, before, rtol=0, atol=tolerance * float(np.abs(before).max())
            )
    return changed
