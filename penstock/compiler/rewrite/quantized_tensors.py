"""Weights that ``torchao.quantization.quantize_`` left as quantized tensors.

torch.export shows such a weight as a constant whose integers, scales and zero points are taken out
of it, and arithmetic on these in one of several spellings. Here each becomes ``linear`` (or another
operator) on a ``dequantize`` of constants, with its activation, where that is quantized as the
program runs, behind quantize and dequantize for each token: the form that the rest of the compiler
knows. The integers and scales are torchao's own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.arguments import arguments
from penstock.compiler.builder import attribute
from penstock.compiler.report import describe_origin
from penstock.compiler.rewrite.edit import MADE, Made, call, get_attribute, new_attribute
from penstock.errors import UnsupportedError

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

#: Operators by name: torchao registers them when it is imported, and it need not be.
TAKE = "export::access_subclass_inner_tensor"
CHOOSE = "torchao::choose_qparams_affine"
QUANTIZE = "torchao::quantize_affine"
DEQUANTIZE = "torchao::dequantize_affine"

INT8 = (-128, 127)

#: How a default in a schema says float32.
FLOAT32 = 6


def apply(module: GraphModule) -> int:
    """Given → Result:

    1. ``access_subclass_inner_tensor(weight, "qdata")`` → a constant of its own.
    2. ``dequantize_affine`` of a constant → ``dequantize_per_channel``, or
       ``dequantize_per_channel_group`` for blocks of a row; of other blocks, its value.
    3. ``dequantize_affine(quantize_affine(x))`` with parameters that ``choose_qparams_affine``
       finds for each row → ``dequantize_per_token(quantize_per_token(x))``; with constant ones for
       all of x → ``dequantize_per_tensor(quantize_per_tensor(x))``.
    4. ``_int_mm`` of such a quantized activation and a constant, scaled for each row and column
       → ``linear`` of the two, dequantized.
    5. ``mm(x, constant integers) * scales`` → ``linear(x, dequantize_per_channel(constant))``.

    Raises :class:`UnsupportedError` for quantized tensors that are used in another way.
    """
    if not any(_name(node) in (TAKE, CHOOSE, QUANTIZE, DEQUANTIZE) for node in module.graph.nodes):
        return 0
    changes = _take_apart(module)
    for rule in (_integer_product, _scaled_product, _constant, _activation):
        for node in list(module.graph.nodes):
            if not node._erased:
                changes += rule(module, node)
    module.graph.eliminate_dead_code()
    _refuse_rest(module)
    return changes


def _name(node: Node) -> str:
    target = node.target
    return target._schema.name if isinstance(target, torch._ops.OpOverload) else ""


def _refuse_rest(module: GraphModule) -> None:
    for node in module.graph.nodes:
        if _name(node).startswith("torchao::"):
            raise UnsupportedError(
                f"{_name(node).replace('::', '.')}{describe_origin(node)} quantizes in a way that "
                "is not known; 8-bit activations for each token and weights of up to 8 bits are"
            )


# --- 1 -----------------------------------------------------------------------------------------


def _take_apart(module: GraphModule) -> int:
    found: dict[tuple[str, str], Node] = {}
    changes = 0
    for node in list(module.graph.nodes):
        if _name(node) != TAKE:
            continue
        weight, part = node.args
        assert isinstance(weight, Node) and isinstance(part, str)
        if weight.op != "get_attr":
            raise UnsupportedError(f"{weight.name} is a quantized tensor, and no weight")
        key = (str(weight.target), part)
        if key not in found:
            value = getattr(attribute(module, key[0]), part)
            first = next(iter(module.graph.nodes))
            found[key] = get_attribute(module, first, value, f"{key[0]}.{part}".replace(".", "_"))
        node.replace_all_uses_with(found[key])
        module.graph.erase_node(node)
        changes += 1
    for node in list(module.graph.nodes):
        if node.op == "get_attr" and not node.users and _is_subclass(node, module):
            module.graph.erase_node(node)
    return changes


def _is_subclass(node: Node, module: GraphModule) -> bool:
    value = attribute(module, str(node.target))
    return type(value) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


# --- 2 -----------------------------------------------------------------------------------------


def _value(module: GraphModule, node: Any) -> torch.Tensor | None:
    """The constant that a node names."""
    if isinstance(node, Node) and node.op == "get_attr":
        return attribute(module, str(node.target)).detach()
    return None


def _constant(module: GraphModule, node: Node) -> int:
    if _name(node) != DEQUANTIZE:
        return 0
    named = arguments(node)
    data, scale = _value(module, named["input"]), _value(module, named["scale"])
    if data is None or scale is None:
        return 0
    zero_point = _value(module, named["zero_point"])
    block = [int(size) for size in named["block_size"]]
    points = torch.zeros_like(scale) if zero_point is None else zero_point
    limits = _limits(named)
    rows_only = data.dim() == 2 and block[0] == 1 and data.dtype == torch.int8
    if not rows_only:
        return _written_out(module, node, named)
    groups = data.shape[1] // block[1]
    if groups > 1 and not all(_takes_groups(user, points) for user in node.users):
        rows_only = False
    if not rows_only or named["output_dtype"] not in (torch.float32, FLOAT32):
        return _written_out(module, node, named)
    scales = scale.to(torch.float32).reshape(data.shape[0], groups)
    integers = points.to(torch.int64).reshape(data.shape[0], groups)
    _replace(node, dequantized(module, node, data, scales, integers, limits))
    return 1


def _takes_groups(user: Node, zero_points: torch.Tensor) -> bool:
    """Whether there is a node or a kernel for a weight with several scales a row."""
    if user.target is aten.linear.default:
        return not bool(zero_points.any())
    return user.target is aten.embedding.default


def _written_out(module: GraphModule, node: Node, named: dict[str, Any]) -> int:
    """The weight's real numbers."""
    inputs = {k: _value(module, v) if isinstance(v, Node) else v for k, v in named.items()}
    with torch.no_grad():
        value = node.target(*inputs.values())  # type: ignore[operator]
    constant = new_attribute(module, node, value, "_dequantized")
    sources = [item for item in inputs.values() if isinstance(item, torch.Tensor)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in sources)
    constant.meta[MADE] = Made("a quantized weight as float32", describe_origin(node), size)
    module.graph.erase_node(node)
    return 1


def dequantized(
    module: GraphModule,
    before: Node,
    data: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor,
    limits: tuple[int, int],
) -> Node:
    """The real numbers of ``data`` int8 [rows, columns], ``scales`` float32 and ``zero_points``
    int64 [rows, groups of columns]."""
    integers = get_attribute(module, before, data, "_integers")
    rows, groups = scales.shape
    if groups == 1:
        scales, zero_points = scales.reshape(rows), zero_points.reshape(rows)
    factors = get_attribute(module, before, scales.contiguous(), "_scales")
    points = get_attribute(module, before, zero_points.contiguous(), "_zero_points")
    if groups == 1:
        return call(
            module, before, quantized.dequantize_per_channel.default,
            integers, factors, points, 0, *limits, torch.int8,
        )  # fmt: skip
    return call(
        module, before, quantized.dequantize_per_channel_group.default,
        integers, factors, points, *limits, torch.int8, data.shape[1] // groups, torch.float32,
    )  # fmt: skip


def _limits(named: dict[str, Any]) -> tuple[int, int]:
    low, high = named.get("quant_min"), named.get("quant_max")
    return (INT8[0] if low is None else int(low), INT8[1] if high is None else int(high))


def _replace(node: Node, result: Node) -> None:
    node.replace_all_uses_with(result)
    node.graph.erase_node(node)


# --- 3 -----------------------------------------------------------------------------------------


def _activation(module: GraphModule, node: Node) -> int:
    if _name(node) != DEQUANTIZE or not isinstance(node.args[0], Node):
        return 0
    made = quantized_activation(module, node, node.args[0])
    if made is None:
        return 0
    _replace(node, made)
    return 1


def quantized_activation(module: GraphModule, before: Node, quantize: Node) -> Node | None:
    """``dequantize(quantize(x))`` for each token or all of x, for a ``quantize_affine`` node; new
    nodes before ``before``. None where it is quantized in another way."""
    if _name(quantize) != QUANTIZE:
        return None
    named = arguments(quantize)
    x = named["input"]
    value = x.meta["val"]
    block = list(named["block_size"])
    if named["output_dtype"] != torch.int8 or _limits(named) != INT8:
        return None
    scale, zero_point = _value(module, named["scale"]), _value(module, named["zero_point"])
    if scale is not None and scale.numel() == 1:
        point = 0 if zero_point is None else int(zero_point)
        return _pair(
            module, before, quantized.quantize_per_tensor.default,
            quantized.dequantize_per_tensor.default, x, (float(scale), point), INT8,
        )  # fmt: skip
    chosen = named["scale"]
    if not isinstance(chosen, Node) or chosen.target is not operator.getitem:
        return None
    by_row = all(size == 1 for size in block[:-1]) and _same(block[-1], value.shape[-1])
    if not isinstance(chosen.args[0], Node) or _name(chosen.args[0]) != CHOOSE or not by_row:
        return None
    if value.dtype != torch.float32:
        return None
    parameters = call(
        module, before, quantized.choose_qparams_per_token_asymmetric.default, x, torch.int8
    )
    pair = tuple(call(module, before, operator.getitem, parameters, index) for index in (0, 1))
    return _pair(
        module, before, quantized.quantize_per_token.default,
        quantized.dequantize_per_token.default, x, pair, INT8, torch.float32,
    )  # fmt: skip


def _same(size: Any, other: Any) -> bool:
    if isinstance(size, Node):
        size = size.meta["val"]
    return bool(size == other)


def _pair(
    module: GraphModule,
    before: Node,
    quantize: Any,
    dequantize: Any,
    x: Node,
    parameters: tuple[Any, ...],
    limits: tuple[int, int],
    *rest: Any,
) -> Node:
    small = call(module, before, quantize, x, *parameters, *limits, torch.int8)
    return call(module, before, dequantize, small, *parameters, *limits, torch.int8, *rest)


# --- 4 and 5 -----------------------------------------------------------------------------------

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
        data = _value(module, _origin(node.args[0]))
        if data is not None and data.dim() == 2 and data.dtype == torch.int8:
            return data
    return None


def _readers(node: Node) -> Iterator[Node]:
    """Who reads ``node``, changes of type and shape passed over."""
    for user in node.users:
        if user.target in PLAIN:
            yield from _readers(user)
        elif _name(user) != "aten::_assert_tensor_metadata":
            yield user


def _only_reader(node: Node, *targets: Any) -> Node | None:
    readers = list(_readers(node))
    return readers[0] if len(readers) == 1 and readers[0].target in targets else None


MUL = (aten.mul.Tensor, aten.mul_.Tensor)
SUB = (aten.sub.Tensor, aten.sub_.Tensor)
ADD = (aten.add.Tensor, aten.add_.Tensor)


def _integer_product(module: GraphModule, node: Node) -> int:
    """``((_int_mm(q + 128, w.t()) - 128 * sums of w) * scales of q) * scales of w``, where the
    128 may be missing."""
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
    if data is None or not isinstance(quantize, Node) or _name(quantize) != QUANTIZE:
        return 0
    by_rows = _only_reader(product, *MUL)
    by_columns = _only_reader(by_rows, *MUL) if by_rows is not None else None
    if by_rows is None or by_columns is None:
        return 0
    scales = _constant_factor(module, by_columns, data.shape[0])
    if scales is None or _origin(by_rows.args[1]) is not quantize.args[2]:
        return 0
    activation = quantized_activation(module, by_columns, quantize)
    if activation is None:
        return 0
    return _become_linear(module, by_columns, activation, data, scales)


def _scaled_product(module: GraphModule, node: Node) -> int:
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
    same = value.dtype == flat.dtype and _same(value.shape[-1], flat.shape[-1])
    return whole if same and value.dim() > 0 else x


def _constant_factor(module: GraphModule, node: Node, rows: int) -> torch.Tensor | None:
    """The factor float32 [rows] of a product."""
    scales = _value(module, _origin(node.args[1]))
    return (
        scales.to(torch.float32).flatten()
        if scales is not None and scales.numel() == rows
        else None
    )


def _become_linear(
    module: GraphModule, node: Node, x: Node, data: torch.Tensor, scales: torch.Tensor
) -> int:
    """``node`` [rows, out], and the sum with a constant bias behind it → ``linear(x, data *
    scales, bias)`` in the shape of what it replaces."""
    bias, last = None, node
    added = _only_reader(node, *ADD)
    if added is not None and added.kwargs.get("alpha", 1) == 1:
        value = _value(module, _origin(added.args[1]))
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
    checks = [user for user in node.users if _name(user) == "aten::_assert_tensor_metadata"]
    if len(checks) < len(node.users) or node.op != "call_function":
        return
    sources = node.all_input_nodes
    for item in (*checks, node):
        node.graph.erase_node(item)
    for source in sources:
        if not source._erased:
            _erase_unread(source)
