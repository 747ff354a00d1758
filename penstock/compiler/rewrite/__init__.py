"""Graph rewrites: FX to FX, in place, one idea a file.

Each module has one function ``apply(graph_module) -> int`` (the number of changes) whose
docstring states Given -> Result. A rewrite keeps ``meta["val"]`` of what it makes true and never
re-traces the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.fx import GraphModule

from penstock.compiler.rewrite import (
    additive_masks,
    constant_products,
    constant_selection,
    decompose_for_delegate,
    fold_batch_norm,
    fold_constants,
    functionalize,
    merge_rolls,
    promote_operands,
    remove_no_ops,
    sizes_of_inputs,
    unmerge_views,
    widen_floats,
)

Rewrite = Callable[[GraphModule], int]

#: In the order in which they run. Before quantization, so that it sees one form of everything.
PIPELINE: Sequence[Rewrite] = (
    functionalize.apply,
    sizes_of_inputs.apply,
    widen_floats.apply,
    remove_no_ops.apply,
    merge_rolls.apply,
    promote_operands.apply,
    additive_masks.apply,
    fold_constants.apply,
    constant_selection.apply,
    decompose_for_delegate.apply,
    constant_products.apply,
    unmerge_views.apply,
    fold_batch_norm.apply,
)


def run(module: GraphModule, rewrites: Sequence[Rewrite] = PIPELINE) -> None:
    """Runs ``rewrites`` in order, then drops what nothing uses any more."""
    for rewrite in rewrites:
        rewrite(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
