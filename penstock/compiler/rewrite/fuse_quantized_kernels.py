"""Fuse dequantize, operator and quantize outside delegates into one quantized kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, copy_origin, get_attribute
from penstock.compiler.fx.quantized_kernels import packed

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed
fused = torch.ops.penstock

QUANTIZE = quantized.quantize_per_tensor.default
DEQUANTIZE = quantized.dequantize_per_tensor.default
DEQUANTIZE_CHANNELS = quantized.dequantize_per_channel.default

#: Operators that only move elements, by the argument that they move; they work on any type.
MOVES = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
    aten.permute.default, aten.transpose.int, aten.t.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.squeeze.default, aten.unsqueeze.default, aten.slice.Tensor, aten.select.int,
    aten.expand.default, aten.clone.default, aten.contiguous.default, aten.flip.default,
    aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.repeat.default,
    aten.unflatten.int,
}  # fmt: skip


def apply(module: GraphModule) -> int:
    """Given → Result, q and dq being quantize and dequantize with parameters:

    1. ``q(move(dq(x)))`` with one set of parameters → ``move(x)``; also without a move.
    2. ``q(add(dq(a), dq(b)))``, shapes equal, also with a clamp in between → ``add(a, b)`` on
       unsigned bytes, which is what the kernel takes: a and b, where int8, move up by 128.
    3. ``q(clamp(x))`` → ``q(x)`` with a narrower range.
    4. ``linear(x, dq(w))`` with a symmetric int8 constant ``w`` → ``mixed_linear(x, w)``, plus
       the bias; ``mm(x, dq(w))`` with one scale a row → ``mixed_mm(x, w)``.
    5. ``embedding(dq(w), ids)`` with a constant ``w`` → ``embedding_byte(w, ids)``, or that for 4
       or 2 bits, packed, where the range says so.
    """
    changes = 0
    for node in list(module.graph.nodes):
        rule = RULES.get(node.target)
        if rule is not None:
            changes += rule(module, node)
    if changes:
        module.graph.eliminate_dead_code()
    return changes


@dataclass(frozen=True)
class _Range:
    """The parameters of a quantize or dequantize for a whole tensor."""

    scale: float
    zero_point: int
    low: int
    high: int
    dtype: torch.dtype

    @classmethod
    def of(cls, node: Node) -> _Range:
        named = arguments(node)
        return cls(
            float(named["scale"]), int(named["zero_point"]), int(named["quant_min"]),
            int(named["quant_max"]), named["dtype"],
        )  # fmt: skip

    @property
    def kernel_arguments(self) -> tuple[float, int, int, int]:
        return (self.scale, self.zero_point, self.low, self.high)

    def clamped(self, low: float | None, high: float | None) -> _Range:
        """Rounding is monotonic, so clamping what is quantized clamps the integers; they are
        computed here as the kernels do it, in float32."""

        def step(value: float) -> int:
            inverse = 1 / torch.tensor(self.scale, dtype=torch.float32)
            return int(torch.round(torch.tensor(value, dtype=torch.float32) * inverse)) + (
                self.zero_point
            )

        return _Range(
            self.scale, self.zero_point,
            self.low if low is None else min(max(self.low, step(low)), self.high),
            self.high if high is None else max(min(self.high, step(high)), self.low),
            self.dtype,
        )  # fmt: skip


def _quantize(module: GraphModule, node: Node) -> int:
    changes = _fuse_moves(module, node) or _fuse_add(module, node)
    return changes or _fuse_clamp(module, node)


# --- rule 1 ------------------------------------------------------------------------------------


def _fuse_moves(module: GraphModule, node: Node) -> int:
    moves: list[Node] = []
    source = node.args[0]
    while isinstance(source, Node) and source.target in MOVES and len(source.users) == 1:
        moves.append(source)
        source = source.args[0]
    if not isinstance(source, Node) or source.target is not DEQUANTIZE:
        return 0
    if _Range.of(source) != _Range.of(node):
        return 0
    result = source.args[0]
    for move in reversed(moves):
        assert callable(move.target)
        with module.graph.inserting_before(move):
            made = module.graph.call_function(move.target, (result, *move.args[1:]), move.kwargs)
        copy_origin(move, made)
        made.meta["val"] = _like(move.meta["val"], node.meta["val"].dtype)
        result = made
    node.replace_all_uses_with(result)  # type: ignore[arg-type]
    module.graph.erase_node(node)
    return 1


# --- rules 2 and 3 ------------------------------------------------------------------------------


def _fuse_add(module: GraphModule, node: Node) -> int:
    source = node.args[0]
    limits: tuple[float | None, float | None] = (None, None)
    if isinstance(source, Node) and source.target in CLAMPS and len(source.users) == 1:
        limits = CLAMPS[source.target](arguments(source))
        source = source.args[0]
    if not isinstance(source, Node) or source.target is not aten.add.Tensor:
        return 0
    named = arguments(source)
    operands = [named["self"], named["other"]]
    if len(source.users) != 1 or named["alpha"] != 1 or not all(map(_is_dequantized, operands)):
        return 0
    shapes = [layout.shape_of(item.meta["val"]) for item in (*operands, source)]
    tensors = [operand.args[0] for operand in operands]
    if any(shape != shapes[0] for shape in shapes) or not all(map(_is_byte, (*tensors, node))):
        return 0
    for tensor in {*tensors, node}:
        _make_unsigned(tensor)
    left, right = (_Range.of(operand) for operand in operands)
    result = call(
        module, node, fused.add.default,
        tensors[0], *left.kernel_arguments, tensors[1], *right.kernel_arguments,
        *_Range.of(node).clamped(*limits).kernel_arguments,
    )  # fmt: skip
    node.replace_all_uses_with(result)
    module.graph.erase_node(node)
    return 1


#: The limits that an activation sets.
CLAMPS: dict[Any, Callable[[dict[str, Any]], tuple[float | None, float | None]]] = {
    aten.relu.default: lambda named: (0.0, None),
    aten.relu6.default: lambda named: (0.0, 6.0),
    aten.hardtanh.default: lambda named: (named["min_val"], named["max_val"]),
    aten.clamp.default: lambda named: (named["min"], named["max"]),
}


def _fuse_clamp(module: GraphModule, node: Node) -> int:
    source = node.args[0]
    if not isinstance(source, Node) or source.target not in CLAMPS or len(source.users) != 1:
        return 0
    narrow = _Range.of(node).clamped(*CLAMPS[source.target](arguments(source)))
    node.args = (source.args[0], *narrow.kernel_arguments, narrow.dtype)
    node.kwargs = {}
    module.graph.erase_node(source)
    return 1


def _is_dequantized(item: Any) -> bool:
    return isinstance(item, Node) and item.target is DEQUANTIZE


def _is_byte(tensor: Node) -> bool:
    """Whether a quantized tensor holds unsigned bytes, or can be made to: its maker and all of
    its readers are known."""
    if tensor.meta["val"].dtype == torch.uint8:
        return True
    return (
        tensor.meta["val"].dtype == torch.int8
        and tensor.target is QUANTIZE
        and all(user.target is DEQUANTIZE for user in tensor.users)
    )


def _make_unsigned(tensor: Node) -> None:
    if tensor.meta["val"].dtype == torch.uint8:
        return
    for node in (tensor, *tensor.users):
        old = _Range.of(node)
        up = (old.zero_point + 128, old.low + 128, old.high + 128, torch.uint8)
        node.args = (node.args[0], old.scale, *up)
        node.kwargs = {k: v for k, v in node.kwargs.items() if k == "out_dtype"}
    tensor.meta["val"] = _like(tensor.meta["val"], torch.uint8)


def _like(value: Any, dtype: torch.dtype) -> torch.Tensor:
    """A fake tensor with another type; computing one may fail where strides differ that no
    program has."""
    with value.fake_mode:
        return torch.empty_like(value, dtype=dtype)


# --- rules 4 and 5 -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Weight:
    """An integer constant [rows, columns] and what it stands for: ``scales`` and ``zero_points``,
    float32 [rows] or [rows, groups of columns]."""

    data: torch.Tensor
    scales: torch.Tensor
    zero_points: torch.Tensor
    low: int
    high: int


def _weight(module: GraphModule, node: Any) -> _Weight | None:
    """The constant that a dequantize node reads, if it has two dimensions and one scale a row."""
    if not isinstance(node, Node) or node.target not in (DEQUANTIZE, DEQUANTIZE_CHANNELS, GROUPS):
        return None
    if any(source.op != "get_attr" for source in node.all_input_nodes):
        return None
    if node.meta["val"].dtype != torch.float32:
        return None
    named = arguments(node)
    data = attribute(module, str(named["input"].target))
    if data.dim() != 2 or data.dtype != torch.int8:
        return None
    rows = data.shape[0]
    if node.target is DEQUANTIZE:
        scales = torch.full((rows,), float(named["scale"]))
        zero_points = torch.full((rows,), float(named["zero_point"]))
    else:
        if node.target is DEQUANTIZE_CHANNELS and named["axis"] % 2 != 0:
            return None
        scales = attribute(module, str(named["scales"].target))
        points = named["zero_points"]
        zero_points = (
            torch.zeros_like(scales) if points is None else attribute(module, str(points.target))
        )
    return _Weight(
        data, scales.detach().to(torch.float32), zero_points.detach().to(torch.float32),
        int(named["quant_min"]), int(named["quant_max"]),
    )  # fmt: skip


GROUPS = quantized.dequantize_per_channel_group.default


def _fuse_linear(module: GraphModule, node: Node) -> int:
    named = arguments(node)
    x, bias = named["input"], named["bias"]
    weight = _weight(module, named["weight"])
    if weight is None or weight.zero_points.any():
        return 0
    value = x.meta["val"]
    shape = layout.shape_of(value)
    if value.dtype != torch.float32 or not (len(shape) == 2 or layout.is_static(shape)):
        return 0
    rows = x
    if len(shape) != 2:
        rows = call(module, node, aten.reshape.default, x, [-1, shape[-1]])
    constants = _constants(module, node, weight, weight.data)
    result = call(module, node, fused.mixed_linear.default, rows, *constants, None)
    if bias is not None:
        result = call(module, node, aten.add.Tensor, result, bias)
    if len(shape) != 2:
        outer = [*shape[:-1], weight.data.shape[0]]
        result = call(module, node, aten.reshape.default, result, outer)
    _replace(node, result)
    return 1


def _fuse_product(module: GraphModule, node: Node) -> int:
    x = node.args[0]
    weight = _weight(module, node.args[1])
    assert isinstance(x, Node)
    if weight is None or weight.zero_points.any() or weight.scales.dim() != 1:
        return 0
    if x.meta["val"].dim() != 2 or x.meta["val"].dtype != torch.float32:
        return 0
    constants = _constants(module, node, weight, weight.data)
    _replace(node, call(module, node, fused.mixed_mm.default, x, *constants))
    return 1


def _fuse_embedding(module: GraphModule, node: Node) -> int:
    weight = _weight(module, node.args[0])
    if weight is None:
        return 0
    bits = next(
        (
            bits
            for bits in (2, 4)
            if (weight.low, weight.high) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            and weight.data.shape[1] % (8 // bits) == 0
        ),
        8,
    )
    name = "embedding_byte" if bits == 8 else f"embedding_{bits}bit"
    constants = _constants(module, node, weight, packed(weight.data, bits))
    target = getattr(fused, name).default
    made = call(module, node, target, *constants, weight.low, weight.high, node.args[1])
    _replace(node, made)
    return 1


def _constants(
    module: GraphModule, node: Node, weight: _Weight, data: torch.Tensor
) -> tuple[Node | None, ...]:
    """The kernels' weight, scales and zero points (none where all are 0)."""
    zero_points = weight.zero_points if weight.zero_points.any() else None
    parts = ((data, "_weight"), (weight.scales, "_scales"), (zero_points, "_zero_points"))
    return tuple(
        None if tensor is None else get_attribute(module, node, tensor, name)
        for tensor, name in parts
    )


def _replace(node: Node, result: Node) -> None:
    node.replace_all_uses_with(result)
    node.graph.erase_node(node)


RULES: dict[Any, Callable[[GraphModule, Node], int]] = {
    QUANTIZE: _quantize,
    aten.linear.default: _fuse_linear,
    aten.mm.default: _fuse_product,
    aten.matmul.default: _fuse_product,
    aten.embedding.default: _fuse_embedding,
}
