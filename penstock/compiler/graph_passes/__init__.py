"""Passes over the small typed graph of one delegate, after lowering and before it is written."""

from __future__ import annotations

from collections.abc import Collection

from penstock.compiler.graph_passes import (
    center,
    drop_padding,
    fold_affine,
    fold_scale,
    fuse_clamp,
    fuse_quantized,
    merge_columns,
    merge_movement,
    move_at_once,
    move_past_products,
    pool_means,
    quantize_at_run_time,
    slice_early,
    slices_to_transpose,
    split_depthwise,
    split_heads,
    split_products,
)
from penstock.graph import clean_up
from penstock.graph.graph import XnnGraph


def run(graph: XnnGraph, *, fixed_sizes: bool = True, varying: Collection[int] = ()) -> XnnGraph:
    """All passes in order; returns the finished graph. ``fixed_sizes``: no dimension but the
    first varies, so shapes are what they seem and not upper bounds. ``varying``: ids of the values
    with a dimension that varies."""
    clean_up.merge_equal_nodes(graph)
    merge_movement.apply(graph)
    split_products.apply(graph)
    fold_scale.apply(graph)
    fold_affine.apply(graph)
    merge_movement.apply(graph)
    center.apply(graph)
    if fixed_sizes:
        slice_early.apply(graph)
        clean_up.merge_equal_nodes(graph)
    fuse_clamp.apply(graph)
    drop_padding.crop(graph)
    quantize_at_run_time.apply(graph)
    fuse_quantized.apply(graph, varying)
    clean_up.remove_dead(graph)
    if fixed_sizes:
        slices_to_transpose.apply(graph)
    merge_movement.apply(graph)
    if fixed_sizes:
        split_heads.apply(graph)
        clean_up.remove_dead(graph)
    move_past_products.apply(graph)
    merge_movement.apply(graph)
    split_depthwise.apply(graph)
    if fixed_sizes:
        merge_columns.apply(graph)
        drop_padding.divide(graph)
    clean_up.remove_dead(graph)
    pool_means.apply(graph, fixed_sizes=fixed_sizes)
    move_at_once.apply(graph)
    return clean_up.renumbered(graph)
