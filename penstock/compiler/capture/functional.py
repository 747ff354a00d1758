"""Torch's functionalization, for models that write in place through views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.export import ExportedProgram, default_decompositions, exported_program
from torch.fx import Node
from torch.overrides import TorchFunctionMode

from penstock.compiler.capture.body_constants import as_operands
from penstock.compiler.capture.failures import in_one_line
from penstock.compiler.capture.quietly import quietly
from penstock.compiler.rewrite.functionalize import (
    gives_unsaid_view,
    reshaped,
    reshapes_in_place,
    roots,
)
from penstock.errors import ExportError

aten = torch.ops.aten


def functional(program: ExportedProgram) -> ExportedProgram:
    """``program`` without writes through views, by another trace.

    Raises :class:`ExportError` where torch cannot follow them, or not for all sizes.
    """
    for node in program.graph.nodes:
        if reshapes_in_place(node):
            for root in roots(node):
                if root.op == "placeholder":
                    raise reshaped(node, root)
    dynamic = _dynamic_sizes(program)
    try:
        with quietly(), _untied(program), FollowedViews(), _with_copies():
            found: ExportedProgram = as_operands(program).run_decompositions(_views(program))
    except Exception as error:
        raise ExportError(
            f"torch.export cannot follow what the model writes in place: {in_one_line(error)}"
        ) from error
    fixed = sorted(dynamic - _dynamic_sizes(found))
    if fixed:
        name, dim = fixed[0]
        raise ExportError(
            "torch.export cannot follow what the model writes in place for all sizes: it fixes "
            f"dimension {dim} of input {name}; write to a slice of it, or compute a new tensor"
        )
    return found


def _views(program: ExportedProgram) -> dict[Any, Any]:
    """The decompositions of composite operators by which something is seen through another name;
    as they are, torch takes what they give for new tensors."""
    targets = {node.target for node in program.graph.nodes if gives_unsaid_view(node)}
    table = default_decompositions() if targets else {}
    return {target: table[target] for target in targets if target in table}


def _dynamic_sizes(program: ExportedProgram) -> set[tuple[str, int]]:
    """The dynamic dimensions of the inputs, as (name, dimension)."""
    given = set(program.graph_signature.user_inputs)
    nodes = (n for n in program.graph.nodes if n.op == "placeholder" and n.name in given)
    values = ((node.name, node.meta.get("val")) for node in nodes)
    return {
        (name, dim)
        for name, value in values
        if isinstance(value, torch.Tensor)
        for dim, size in enumerate(value.shape)
        if isinstance(size, torch.SymInt) and not size.node.expr.is_number
    }


def _with_copies() -> AbstractContextManager[Any]:
    """Within it ``copy(buffer, x)`` stays: PyTorch has the readers of a buffer read ``x`` instead,
    also where that is of another shape or type."""
    return mock.patch.object(
        exported_program,
        "_remove_unnecessary_copy_op_pass",
        lambda module, signature: (module, signature),
    )


@contextmanager
def _untied(program: ExportedProgram) -> Iterator[None]:
    """Buffers and parameters that nothing reads become copies for a while: a second name of one
    that is written to would be an alias to torch, which it refuses."""
    values = (program.state_dict, program.constants)
    kept = [dict(held) for held in values]
    named = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    unread = {
        named.get(node.name)
        for node in program.graph.nodes
        if node.op == "placeholder" and all(_only_stores(user, node) for user in node.users)
    }
    for held in values:
        for name in unread & set(held):
            value = held[name]
            if isinstance(value, torch.nn.Parameter):
                held[name] = torch.nn.Parameter(value.detach().clone(), value.requires_grad)
            elif isinstance(value, torch.Tensor):
                held[name] = value.clone()
    try:
        yield
    finally:
        for held, before in zip(values, kept, strict=True):
            held.update(before)


def _only_stores(user: Node, buffer: Node) -> bool:
    return user.target is torch.ops.aten.copy_.default and user.args[0] is buffer and not user.users


class FollowedViews(TorchFunctionMode):
    """Within it dropout in evaluation mode is its input, as it is when PyTorch runs it (a write to
    one is a write to the other; the definition in Python, which is traced, copies it), and the
    parts of ``unbind`` are selected (what is written to them would fix dynamic sizes)."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is aten.dropout.default and not kwargs and not args[2]:
            return args[0]
        if func is aten.unbind.int and not kwargs:
            x, dim = args[0], args[1] if len(args) > 1 else 0
            if isinstance(x.shape[dim], int):
                return [x.select(dim, index) for index in range(x.shape[dim])]
        return func(*args, **(kwargs or {}))
