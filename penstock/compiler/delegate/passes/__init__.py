"""The pipeline of graph passes: XnnGraph -> XnnGraph, after lowering and before it is written.

Each pass has ``apply(graph) -> None``, which changes the graph in place and whose docstring states
Given -> Result.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler.delegate.passes import (
    center,
    drop_padding,
    fold_affine,
    fold_padding,
    fold_scale,
    fuse_clamp,
    fuse_quantized,
    keep_ranks,
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
from penstock.compiler.steps import Step, run_steps
from penstock.graph import clean_up
from penstock.graph.checks import check_graph
from penstock.graph.graph import XnnGraph

PIPELINE: Sequence[Step[XnnGraph]] = (
    Step(clean_up.merge_equal_nodes, "parallel layers that share an input transpose it once each"),
    Step(merge_movement.apply, "lowering leaves a reshape or a transpose for every view"),
    Step(split_products.apply, "sees slices right behind a product once movement is combined"),
    Step(fold_scale.apply, "behind split_products: the scale of queries alone"),
    Step(fold_affine.apply, "of the scales that are left, those before products"),
    Step(merge_movement.apply, "scales that stood between reshapes and transposes are folded"),
    Step(center.apply, "needs affine parts of norms folded: only products read the norm"),
    Step(
        slice_early.apply, "while elementwise nodes are float and unfused", needs_fixed_sizes=True
    ),
    Step(
        clean_up.merge_equal_nodes,
        "slice_early slices one input for several users",
        needs_fixed_sizes=True,
    ),
    Step(fuse_clamp.apply, "before integers: the range of a clamp is that of its int8 output"),
    Step(drop_padding.crop, "before integers: float taps are cut without their scales"),
    Step(quantize_at_run_time.apply, "its conversions are none for fuse_quantized to settle"),
    Step(fuse_quantized.apply, "all passes behind it see settled integers"),
    Step(fold_padding.apply, "needs settled integers: convolutions pad with their input's zero"),
    Step(
        slices_to_transpose.apply,
        "needs conversions out of the way of slices",
        needs_fixed_sizes=True,
    ),
    Step(
        split_heads.apply,
        "needs settled integers: heads of int8 products stay together",
        needs_fixed_sizes=True,
    ),
    Step(move_past_products.apply, "needs the final products"),
    Step(merge_movement.apply, "move_past_products brings movement together"),
    Step(split_depthwise.apply, "needs settled integers: float kernels alone are split"),
    Step(
        merge_columns.apply,
        "needs settled integers: what pays depends on the type",
        needs_fixed_sizes=True,
    ),
    Step(drop_padding.divide, "needs the final kernels", needs_fixed_sizes=True),
    Step(pool_means.apply, "sums of rows are products of one column until here"),
    Step(keep_ranks.apply, "runs between integers are final; adds no number that others look for"),
    Step(move_at_once.apply, "only orders: all others ignore the order of independent nodes"),
)


def run(graph: XnnGraph) -> XnnGraph:
    """The pipeline, in place; returns the finished graph, its values renumbered."""
    run_steps(PIPELINE, graph, clean_up.remove_dead, check_graph, fixed_sizes=graph.fixed_sizes)
    return clean_up.renumbered(graph)
