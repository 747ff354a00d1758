"""A PyTorch model -> a graph: ``torch.export``, once.

The result is an ``fx.GraphModule`` whose parameters, buffers and constants are ``get_attr`` nodes
and whose operators are ATen's as the model called them: composite ones (linear, layer_norm,
scaled_dot_product_attention …) stay whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from penstock.compiler.rewrite import fold_constants
from penstock.compiler.rewrite.functionalize import writes_to_a_view
from penstock.errors import ExportError, InputError


@dataclass
class Captured:
    """A captured model. ``module.graph`` has one placeholder for each leaf of the inputs.

    ``input_structure`` / ``output_structure`` are the pytree specs of ``(args, kwargs)`` and of
    the result; ``examples`` are the flat example inputs in the placeholders' order;
    ``bounds`` the upper bounds of the dynamic dimensions' symbols.
    """

    module: GraphModule
    examples: list[Any]
    input_structure: pytree.TreeSpec
    output_structure: pytree.TreeSpec
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    bounds: dict[Any, int]

    @property
    def placeholders(self) -> list[Node]:
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]


def capture(
    model: torch.nn.Module | ExportedProgram | str | Path,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> Captured:
    """Captures ``model``: a module with example inputs, a program that ``torch.export`` made, or
    the path of a ``.pt2`` archive (which carry their example inputs).

    Raises :class:`ExportError` where ``torch.export`` cannot capture the model, and
    :class:`InputError` where example inputs are missing.
    """
    program = _exported(model, args, kwargs, dynamic_shapes)
    if program.example_inputs is None and args is None:
        raise InputError("the exported program carries no example inputs: pass them as args")
    example_args, example_kwargs = (
        (tuple(args), dict(kwargs or {})) if args is not None else program.example_inputs
    )
    module = _module(program)
    if any(writes_to_a_view(node) for node in module.graph.nodes):
        # Writes to constants are carried out here and now; for the others, only torch's own
        # functionalization can follow a write through a view, at the price of another trace.
        fold_constants.apply(module)
        if any(writes_to_a_view(node) for node in module.graph.nodes):
            module = _module(program.run_decompositions({}))
    spec = program.call_spec
    examples = pytree.tree_leaves((example_args, example_kwargs))
    return Captured(
        module=module,
        examples=examples,
        input_structure=spec.in_spec,
        output_structure=spec.out_spec,
        args=tuple(example_args),
        kwargs=dict(example_kwargs),
        bounds=_upper_bounds(program),
    )


def _module(program: ExportedProgram) -> GraphModule:
    module = program.module(check_guards=False)
    if not isinstance(module, GraphModule):
        raise ExportError(f"torch.export gave a {type(module).__name__}, not a graph")
    return module


def _exported(
    model: torch.nn.Module | ExportedProgram | str | Path,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> ExportedProgram:
    if isinstance(model, ExportedProgram):
        return model
    if isinstance(model, (str, Path)):
        try:
            return torch.export.load(str(model))
        except Exception as error:
            raise ExportError(f"cannot load {model}: {_first_line(error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"expected a torch.nn.Module, got a {type(model).__name__}")
    if args is None or isinstance(args, (torch.Tensor, str)):
        raise InputError("example inputs must be a tuple, e.g. (x,)")
    if model.training:
        model.eval()
    try:
        with torch.no_grad():
            return torch.export.export(
                model,
                tuple(args),
                dict(kwargs or {}),
                dynamic_shapes=dynamic_shapes,
                strict=False,
            )
    except Exception as error:
        raise ExportError(
            f"torch.export cannot capture {type(model).__name__}: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _upper_bounds(program: ExportedProgram) -> dict[Any, int]:
    bounds: dict[Any, int] = {}
    for symbol, values in program.range_constraints.items():
        upper = values.upper
        if upper.is_number and upper.is_finite and int(upper) < 2**31:
            bounds[symbol] = int(upper)
    return bounds
