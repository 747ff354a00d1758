"""Products of quantized weights that torchao has spelled out in integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.edit import call
from penstock.compiler.rewrite.quantized_constants import (
    INT8,
    QUANTIZE,
    dequantized,
    quantized_activation,
    same_size,
    schema_name,
    value_of,
    zero_point_of,
)

aten = torch.ops.aten

#: Only change the type or the shape.
PLAIN = {
    aten.to.dtype, aten._to_copy.default, aten.reshape.default, aten.view.default,
    aten.flatten.using_ints, aten.unsqueeze.default, aten.contiguous.default, aten.clone.default,
}  # fmt: skip


def _origin(node: Any) -> Any:
    """What ``node`` is, but for its type and shape."""
    while isinstance(node, Node) and node.target in PLAIN:
        node = node.args[0]
    return node


def _transposed(module: GraphModule, node: Any) -> torch.Tensor | None:
    """The int8 constant [out, in] that a node is the transpose of."""
    node = _origin(node)
    if isinstance(node, Node) and node.target in (aten.t.default, aten.permute.default):
        data = value_of(module, _origin(node.args[0]))
        if data is not None and data.dim() == 2 and data.dtype == torch.int8:
            return data
    return None


def _readers(node: Node) -> Iterator[Node]:
    """Who reads ``node``, changes of type and shape passed over."""
    for user in node.users:
        if user.target in PLAIN:
            yield from _readers(user)
        elif schema_name(user) != "aten::_assert_tensor_metadata":
            yield user


def _only_reader(node: Node, *targets: Any) -> Node | None:
    readers = list(_readers(node))
    return readers[0] if len(readers) == 1 and readers[0].target in targets else None


MUL = (aten.mul.Tensor, aten.mul_.Tensor)
SUB = (aten.sub.Tensor, aten.sub_.Tensor)
ADD = (aten.add.Tensor, aten.add_.Tensor)


def integer_product(module: GraphModule, node: Node) -> int:
    """Given ``((_int_mm(q + 128, w.t()) - 128 * sums of w) * scales of q) * scales of w``, where
    the 128 may be missing, or ``zero points of q * scales of q * sums of w`` be subtracted before
    the last factor → Result ``linear`` of the two, dequantized."""
    if node.target is not aten._int_mm.default:
        return 0
    quantize, data = _origin(node.args[0]), _transposed(module, node.args[1])
    product = node
    if isinstance(quantize, Node) and quantize.target is aten.add.Tensor:
        quantize = _origin(quantize.args[0])
        less = _only_reader(node, *SUB)
        if less is None:
            return 0
        product = less
    if data is None or not isinstance(quantize, Node) or schema_name(quantize) != QUANTIZE:
        return 0
    by_rows = _only_reader(product, *MUL)
    if by_rows is None or _origin(by_rows.args[1]) is not quantize.args[2]:
        return 0
    centred = _only_reader(by_rows, *SUB)
    if centred is None:
        centred = by_rows
        if zero_point_of(module, quantize) != 0:
            return 0
    elif not _zero_points_share(module, centred.args[1], quantize, data):
        return 0
    by_columns = _only_reader(centred, *MUL)
    if by_columns is None:
        return 0
    scales = _constant_factor(module, by_columns, data.shape[0])
    if scales is None:
        return 0
    activation = quantized_activation(module, by_columns, quantize)
    if activation is None:
        return 0
    return _become_linear(module, by_columns, activation, data, scales)


def _zero_points_share(module: GraphModule, node: Any, quantize: Node, data: torch.Tensor) -> bool:
    """Whether a node is ``(zero points * scales of q) * sums of the rows of data``."""
    node = _origin(node)
    if not isinstance(node, Node) or node.target not in MUL:
        return False
    factor, sums = map(_origin, node.args[:2])
    if not isinstance(factor, Node) or factor.target not in MUL:
        return False
    if not isinstance(sums, Node) or sums.target is not aten.sum.dim_IntList:
        return False
    summed = value_of(module, sums.args[0])
    if summed is None or not torch.equal(summed, data) or arguments(sums)["dim"] != [-1]:
        return False
    parameters = arguments(quantize)
    expected = [parameters["zero_point"], parameters["scale"]]
    return [_origin(item) for item in factor.args[:2]] == expected


def scaled_product(module: GraphModule, node: Node) -> int:
    """Given ``mm(x, integers of w.t()) * scales of w`` → Result ``linear(x, w dequantized)``."""
    if node.target is not aten.mm.default:
        return 0
    data = _transposed(module, node.args[1])
    product = _only_reader(node, *MUL)
    scales = (
        None if data is None or product is None else _constant_factor(module, product, len(data))
    )
    if data is None or product is None or scales is None:
        return 0
    return _become_linear(module, product, _before_flattening(node.args[0]), data, scales)


def _before_flattening(x: Any) -> Node:
    """``x``, with all of its dimensions where it was made a matrix for the product."""
    assert isinstance(x, Node)
    whole = _origin(x)
    value, flat = whole.meta["val"], x.meta["val"]
    same = value.dtype == flat.dtype and same_size(value.shape[-1], flat.shape[-1])
    return whole if same and value.dim() > 0 else x


def _constant_factor(module: GraphModule, node: Node, rows: int) -> torch.Tensor | None:
    """The factor float32 [rows] of a product, where one may stand for all."""
    scales = value_of(module, _origin(node.args[1]))
    if scales is None or scales.numel() not in (1, rows):
        return None
    return scales.to(torch.float32).flatten().expand(rows)


def _become_linear(
    module: GraphModule, node: Node, x: Node, data: torch.Tensor, scales: torch.Tensor
) -> int:
    """``node`` [rows, out], and the sum with a constant bias behind it → ``linear(x, data *
    scales, bias)`` in the shape of what it replaces."""
    bias, last = None, node
    added = _only_reader(node, *ADD)
    if added is not None and added.kwargs.get("alpha", 1) == 1:
        value = value_of(module, _origin(added.args[1]))
        if value is not None and value.shape == (len(data),):
            bias, last = added.args[1], added
    if x.meta["val"].dim() == last.meta["val"].dim():
        outer: list[Any] | None = None
    else:
        outer = list(last.meta["val"].shape[:-1])
        if not all(isinstance(size, int) for size in outer):
            if len(outer) > 1:
                return 0
            outer = [-1]
    points = torch.zeros(len(data), 1, dtype=torch.int64)
    weight = dequantized(module, last, data, scales.unsqueeze(1), points, INT8)
    result = call(module, last, aten.linear.default, x, weight, bias)
    if outer is not None:
        result = call(module, last, aten.reshape.default, result, [*outer, len(data)])
    last.replace_all_uses_with(result)
    _erase_unread(last)
    return 1


def _erase_unread(node: Node) -> None:
    """Erases a node that nothing reads, and what nothing reads then; checks of types are no
    readers. (Operators in place are never dead to torch.)"""
    checks = [user for user in node.users if schema_name(user) == "aten::_assert_tensor_metadata"]
    if len(checks) < len(node.users) or node.op != "call_function":
        return
    sources = node.all_input_nodes
    for item in (*checks, node):
        node.graph.erase_node(item)
    for source in sources:
        if not source._erased:
            _erase_unread(source)
