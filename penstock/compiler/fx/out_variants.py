"""From functional operator overloads to the out variants that kernels implement.

The names are facts of ExecuTorch: a kernel answers to the name and overload of the operator's out
variant, takes the functional arguments in the schema's order and then its out tensors. The
dispatcher knows ATen's schemas; those of the quantized kernels, which PyTorch lacks, are in
:mod:`penstock.compiler.fx.quantized_kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from penstock.compiler.fx.quantized_kernels import FUSED, schemas_of
from penstock.formats.kernel_names import stock_kernels

aten = torch.ops.aten

#: Where a new tensor lies and what it holds; an out tensor says all this itself.
TENSOR_OPTIONS = ("dtype", "layout", "device", "pin_memory")

#: Kernels that return a number, or write to their first argument, and so have no out argument.
WITHOUT_OUT = {
    aten.sym_size.int: "aten::sym_size.int",
    aten.sym_numel.default: "aten::sym_numel",
    aten._local_scalar_dense.default: "aten::_local_scalar_dense",
    aten.copy_.default: "aten::copy_",
    aten.index_put_.default: "aten::index_put_",
}

#: Namespaces of PyTorch itself. Operators of others are the user's, and so are their kernels.
OWN_NAMESPACES = ("aten", "prims", "prim", "quantized_decomposed", "penstock", "torchao")


@dataclass(frozen=True)
class Kernel:
    """A kernel for an operator: ``name`` and ``overload`` as programs refer to it, its parameters
    in order (schema arguments; out arguments apart), and the number of out arguments."""

    name: str
    overload: str
    parameters: tuple[Any, ...]
    outs: int

    def __str__(self) -> str:
        return f"{self.name}.{self.overload}" if self.overload else self.name


@cache
def find(target: Any) -> Kernel | None:
    """The kernel that the stock runtime has for an overload. Operators outside PyTorch's own
    namespaces are taken to have a kernel if they have an out variant: a runtime that runs the
    program brings it along."""
    if not isinstance(target, torch._ops.OpOverload):
        return None
    if target in WITHOUT_OUT:
        name, _, overload = WITHOUT_OUT[target].partition(".")
        return Kernel(name, overload, tuple(target._schema.arguments), 0)
    foreign = target.namespace not in OWN_NAMESPACES
    for kernel in _out_variants(target):
        if foreign or str(kernel) in stock_kernels():
            return kernel
    return None


def _out_variants(target: torch._ops.OpOverload) -> Iterator[Kernel]:
    """Every out variant with the arguments of ``target`` by name and type; those that leave out
    the tensor options come last."""
    own = [(a.name, str(a.type)) for a in target._schema.arguments]
    fewer = [pair for pair in own if pair[0] not in TENSOR_OPTIONS]
    candidates = [_kernel(schema) for schema in _out_schemas(target)]
    for wanted in (own, fewer):
        for kernel in candidates:
            if [(a.name, str(a.type)) for a in kernel.parameters] == wanted:
                yield kernel


def _kernel(schema: Any) -> Kernel:
    parameters = tuple(a for a in schema.arguments if not a.is_out)
    return Kernel(
        schema.name, schema.overload_name, parameters, len(schema.arguments) - len(parameters)
    )


def _out_schemas(target: torch._ops.OpOverload) -> list[Any]:
    name = FUSED.get(target._schema.name, target._schema.name)
    known = schemas_of(name)
    if known:
        return list(known)
    _, overloads = torch._C._jit_get_operation(target._schema.name)
    schemas = [torch._C._get_schema(target._schema.name, overload) for overload in overloads or []]
    return [schema for schema in schemas if any(a.is_out for a in schema.arguments)]


@cache
def copying_twin(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """``aten.permute.default`` → ``aten.permute_copy.default``, if that has a kernel."""
    name = target._schema.name.split("::")[1]
    packet = getattr(getattr(torch.ops, target.namespace), f"{name}_copy", None)
    if packet is None or target._overloadname not in packet.overloads():
        return None
    twin = getattr(packet, target._overloadname)
    return twin if isinstance(twin, torch._ops.OpOverload) and find(twin) else None
