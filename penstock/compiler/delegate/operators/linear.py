"""Matrix products: linear, addmm, mm, bmm, matmul."""

from __future__ import annotations

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import Tensor
from penstock.compiler.delegate.operators.constraints import FLOATS, argument_is
from penstock.compiler.delegate.operators.registry import Weighted, operator
from penstock.compiler.fx.arguments import arguments

aten = torch.ops.aten


@operator(
    "linear",
    aten.linear.default,
    constraints=FLOATS,
    quantization=Weighted(dynamic=True),
)
def lower_linear(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    bias = named["bias"]
    return ex.linear(
        b,
        b.tensor(named["input"]),
        b.tensor(named["weight"]),
        None if bias is None else b.tensor(bias),
    )


@operator(
    "addmm",
    aten.addmm.default,
    constraints=(*FLOATS, argument_is("alpha", 1), argument_is("beta", 1)),
)
def lower_addmm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    product = ex.matmul(b, b.tensor(named["mat1"]), b.tensor(named["mat2"]))
    return ex.add(b, product, b.tensor(named["self"]))


@operator(
    "matmul",
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    constraints=FLOATS,
    notes="of activations in float: the XNNPACK of executorch 1.5.1 has no batched product of int8",
)
def lower_matmul(b: GraphBuilder, node: Node) -> Tensor:
    left, right = node.args[:2]
    return ex.matmul(b, b.tensor(left), b.tensor(right))


@operator(
    "baddbmm",
    aten.baddbmm.default,
    constraints=FLOATS,
)
def lower_baddbmm(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    product = ex.matmul(b, b.tensor(named["batch1"]), b.tensor(named["batch2"]))
    product = ex.affine(b, product, float(named["alpha"]), 0.0)
    if named["beta"] == 0:
        return product
    return ex.add(b, product, ex.affine(b, b.tensor(named["self"]), float(named["beta"]), 0.0))
