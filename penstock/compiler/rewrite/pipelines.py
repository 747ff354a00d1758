"""The pipelines of graph rewrites, in the order in which a model meets them.

Each step is a rewrite: ``apply(graph_module) -> int`` (the number of changes), in place, whose
docstring states Given -> Result. A rewrite keeps ``meta["val"]`` of what it makes true and never
re-traces the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch.fx import GraphModule

from penstock.compiler.fx.control_flow import bodies
from penstock.compiler.rewrite import (
    additive_masks,
    cached_rows,
    common_subexpressions,
    complex_pairs,
    computed_slices,
    constant_products,
    constant_selection,
    constants_of_bodies,
    decompose,
    decompose_for_delegate,
    fold_batch_norm,
    fold_constants,
    fold_layer_scale,
    functionalize,
    fuse_quantized_kernels,
    grouped_products,
    guarded_choices,
    inside_integers,
    known_masks,
    legalize_sizes,
    many_dimensions,
    mask_writes,
    merge_rolls,
    moved_masks,
    outside_masks,
    padded_pooling,
    promote_operands,
    remove_no_ops,
    scalar_operands,
    selected_rows,
    sizes_of_inputs,
    softened_masks,
    stacked_results,
    state,
    unmerge_views,
    widen_floats,
)
from penstock.compiler.steps import Step, run_steps

Rewrite: TypeAlias = "Step[GraphModule]"

#: To canonical form. Before quantization, so that it sees one form of everything.
CANONICALIZE: Sequence[Rewrite] = (
    Step(functionalize.apply, "all others take operators for pure functions"),
    Step(fold_batch_norm.put_together, "the operator that users wrote has an entry"),
    Step(sizes_of_inputs.apply, "sizes read from inputs only do not tie operators to each other"),
    Step(widen_floats.apply, "XNNPACK gets float32 alone; before anything asks for types"),
    Step(remove_no_ops.apply, "fewer nodes for all that follow; needs the widened types"),
    Step(many_dimensions.apply, "no no-op stands between reshapes and permutations any more"),
    Step(merge_rolls.apply, "rolls in a row, once no no-op stands between them"),
    Step(padded_pooling.apply, "pads of nothing are gone"),
    Step(grouped_products.apply, "needs the widened types; makes constants' views to be folded"),
    Step(promote_operands.apply, "casts of mixed operands become nodes that can be folded"),
    Step(fold_constants.apply, "a quotient by what folds to a constant is a number to the next"),
    Step(
        common_subexpressions.apply,
        "constants are known; masks that are computed alike are one to the next",
    ),
    Step(selected_rows.apply, "masks that are computed alike are one; makes choices for the next"),
    Step(mask_writes.apply, "numbers are constants; makes choices for the next"),
    Step(inside_integers.apply, "casts and constants are settled; makes choices by masks inside"),
    Step(known_masks.apply, "constants are folded; what hides nothing is no mask to the next"),
    Step(softened_masks.apply, "masks are still operators of their own"),
    Step(moved_masks.apply, "softmaxes know their masks; makes masks inside for the next"),
    Step(additive_masks.apply, "needs the casts of masks to be nodes"),
    Step(fold_constants.apply, "masks, indices and weights that the steps before made constant"),
    Step(computed_slices.apply, "caches written by slices are rows at positions to the next step"),
    Step(cached_rows.apply, "needs masks to be numbers; what it leaves are operators with entries"),
    Step(
        complex_pairs.apply, "windows and tables of turns must be constants; makes real operators"
    ),
    Step(constant_selection.apply, "needs indices to be constants"),
    Step(outside_masks.apply, "masks that stay boolean are known; makes masks inside for the next"),
    Step(guarded_choices.apply, "masks and what they choose from are what entries see"),
    Step(decompose_for_delegate.apply, "asks entries, some of which need constants"),
    Step(constant_products.apply, "products of weights, also out of decompositions"),
    Step(unmerge_views.apply, "views that decompositions left around products"),
    Step(fold_batch_norm.apply, "needs the layer beside the norm, without views between"),
    Step(constants_of_bodies.apply, "of what was folded; then the graphs of branches and loops"),
)

#: For static quantization, after the canonical form.
FOR_STATIC_QUANTIZATION: Sequence[Rewrite] = (
    Step(fold_layer_scale.apply, "observers see the scaled result of the layer"),
)

#: Between quantization and partition.
BEFORE_PARTITION: Sequence[Rewrite] = (
    Step(state.apply, "buffers that change keep a node that partitioning must see"),
)

#: What is left outside of delegates, for kernels.
FOR_KERNELS: Sequence[Rewrite] = (
    Step(stacked_results.apply, "its new tensors are operators for the steps after it"),
    Step(fuse_quantized_kernels.apply, "patterns of whole operators, before they are taken apart"),
    Step(decompose.apply, "operators without a kernel"),
    Step(scalar_operands.apply, "numbers where a kernel takes tensors; decompositions bring some"),
    Step(fold_constants.apply, "what decompositions compute from constants alone"),
    Step(common_subexpressions.apply, "decompositions count the same positions each"),
    Step(legalize_sizes.apply, "only of sizes that something still reads"),
)


def run(module: GraphModule, steps: Sequence[Rewrite] = CANONICALIZE) -> None:
    """Runs ``steps`` in order, and then in the graphs of branches and loops."""
    run_steps(steps, module, _remove_dead, _check)
    module.graph.lint()
    for body in bodies(module):
        run(body, steps)
        body.recompile()


def _remove_dead(module: GraphModule) -> None:
    module.graph.eliminate_dead_code()


def _check(module: GraphModule) -> None:
    module.graph.lint()
    calls = (n for n in module.graph.nodes if n.op == "call_function" and n.users)
    unknown = [node.name for node in calls if "val" not in node.meta]
    if unknown:
        raise ValueError(f"no value is known of {', '.join(unknown[:5])}")
