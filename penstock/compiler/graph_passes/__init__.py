"""Passes over the small typed graph of one delegate, after lowering and before it is written."""

from __future__ import annotations

from penstock.compiler.graph_passes import (
    clean_up,
    fold_scale,
    fuse_clamp,
    fuse_quantized,
    merge_columns,
    quantize_at_run_time,
    split_depthwise,
    split_products,
)
from penstock.formats.payload import XnnGraph


def run(graph: XnnGraph) -> XnnGraph:
    """All passes in order; returns the finished graph."""
    clean_up.merge_equal_nodes(graph)
    split_products.apply(graph)
    fold_scale.apply(graph)
    fuse_clamp.apply(graph)
    quantize_at_run_time.apply(graph)
    fuse_quantized.apply(graph)
    split_depthwise.apply(graph)
    merge_columns.apply(graph)
    clean_up.remove_dead(graph)
    return clean_up.renumbered(graph)
