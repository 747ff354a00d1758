"""Scaled dot-product attention and softmax."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.fx import Node

from penstock.compiler.delegate.lowering import ends, masked_rows, reductions
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.masked_rows import MaskedRows
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.delegate.operators.constraints import (
    FLOATS,
    argument_is,
    is_constant,
    rank_fits,
)
from penstock.compiler.delegate.operators.registry import operator
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.marks import ATTENTION_OF_PARTS, EVERY_ROW_SEES
from penstock.graph.kinds import NodeKind

aten = torch.ops.aten

PERMUTES = (aten.permute.default, aten.transpose.int)


def _floats_but_mask(node: Node) -> str | None:
    """float32 throughout; a boolean mask must be constant (a rewrite makes others additive)."""
    named = arguments(node)
    for name in ("query", "key", "value"):
        dtype = named[name].meta["val"].dtype
        if dtype != torch.float32:
            return f"its {name} is {dtype}, XNNPACK's operators work on float32"
    mask = named["attn_mask"]
    if isinstance(mask, Node) and mask.meta["val"].dtype != torch.float32 and not is_constant(mask):
        return (
            f"its mask is {mask.meta['val'].dtype} and computed at run time, XNNPACK reads float32"
        )
    return None


@operator(
    "scaled_dot_product_attention",
    aten.scaled_dot_product_attention.default,
    constraints=(_floats_but_mask, rank_fits, argument_is("dropout_p", 0.0, 0)),
    notes="two batched products and a softmax; causal and additive masks; grouped queries",
)
def lower_attention(b: GraphBuilder, node: Node) -> Tensor:
    named = arguments(node)
    query, key, value = (b.tensor(named[name]) for name in ("query", "key", "value"))
    mask = None if named["attn_mask"] is None else additive_mask(b, named["attn_mask"])
    rows = None
    if named["is_causal"]:
        mask = causal_mask(b, query, key)
    elif mask is not None:
        known = bool(node.meta.get(EVERY_ROW_SEES, False))
        rows = masked_rows.without_empty_rows(b, mask, key, every_row_sees=known)
        mask = rows.mask
    width = query.shape[-1]
    if named["scale"] is not None:
        scale = float(named["scale"])
    elif isinstance(width, int):
        scale = 1.0 / math.sqrt(width)
    else:
        raise LoweringError("its head size is dynamic")
    if named["enable_gqa"]:
        key, value = (_repeated_heads(b, item, query) for item in (key, value))
    last = tuple(range(key.rank - 2)) + (key.rank - 1, key.rank - 2)
    scores = ex.matmul(b, ex.affine(b, query, scale, 0.0), b.permute(key, last))
    if mask is not None:
        scores = ex.add(b, scores, mask)
    result = ex.matmul(b, ex.softmax(b, scores, -1), value)
    if rows is None or rows.seen is None:
        return result
    # Heads that go behind their tokens next are moved first: longer runs for the one factor.
    return rows.only_seen(b, b.place(result, (0, 2, 1, 3)) if _heads_go_last(node) else result)


def _parts_are_floats(node: Node) -> str | None:
    """float32 throughout."""
    query, parts, mask = node.args[:3]
    for tensor in (query, *parts, mask):  # type: ignore[misc]
        if tensor.meta["val"].dtype != torch.float32:
            return f"it reads {tensor.meta['val'].dtype}, XNNPACK's operators work on float32"
    return None


@operator(
    "attention_of_parts",
    ATTENTION_OF_PARTS,
    constraints=(_parts_are_floats, rank_fits),
    notes="attention over a cache and the rows that are written to it",
)
def lower_attention_of_parts(b: GraphBuilder, node: Node) -> Tensor:
    query, mask = b.tensor(node.args[0]), b.tensor(node.args[2])
    parts = [b.tensor(part) for part in node.args[1]]  # type: ignore[union-attr]
    keys, values = parts[:2], parts[2:]
    scale, cap = map(float, (*node.args[3:], 0.0)[:2])  # type: ignore[arg-type]
    scaled = ex.affine(b, query, scale / cap if cap else scale, 0.0)
    known = bool(node.meta.get(EVERY_ROW_SEES, False))
    groups = _groups(query.shape[1], keys[0].shape[1])
    rows = _rows_of_groups(b, mask, groups, known)
    if groups > 1:
        batch, _, count, width = query.shape
        scaled = b.reshape(
            scaled, (batch, keys[0].shape[1], layout.product((groups, count)), width)
        )
    last = (0, 1, 3, 2)
    scores = [ex.matmul(b, scaled, b.permute(key, last)) for key in keys]
    if cap:
        scores = [ex.affine(b, b.unary(NodeKind.TANH, s), cap, 0.0) for s in scores]
    chances = ex.softmax(b, ex.add(b, ex.concatenate(b, scores, -1), rows.mask), -1)
    start: layout.Dim = 0
    total: Tensor | None = None
    for value in values:
        part = ends.part(b, chances, 3, int(start), value.shape[2])
        part = ex.matmul(b, part, value)
        total = part if total is None else ex.add(b, total, part)
        start = value.shape[2]
    assert total is not None
    return b.reshape(rows.only_seen(b, total), query.shape)


def _groups(heads: layout.Dim, shared: layout.Dim) -> int:
    """How many queries share a key."""
    if not isinstance(heads, int) or not isinstance(shared, int):
        raise LoweringError("its number of heads is dynamic")
    return heads // shared


def _rows_of_groups(b: GraphBuilder, mask: Tensor, groups: int, known: bool) -> MaskedRows:
    """The mask [..., rows, columns] without empty rows, and repeated for each query of a group:
    [..., groups * rows, columns]. Computed once for all layers."""
    key = ("rows of groups", b.value_of(mask).id, mask.order, mask.stored, groups, known)
    found = b.remembered.get(key)
    if not isinstance(found, MaskedRows):
        columns = b.permute(mask, (*range(mask.rank - 2), mask.rank - 1, mask.rank - 2))
        rows = masked_rows.without_empty_rows(b, mask, columns, every_row_sees=known)
        wide, seen = (
            None if x is None else ex.concatenate(b, [x] * groups, x.rank - 2)
            for x in (rows.mask, rows.seen)
        )
        assert wide is not None
        found = b.remembered[key] = MaskedRows(wide, seen)
    return found


def _heads_go_last(node: Node) -> bool:
    """Whether all that is done with [batch, heads, rows, size] is to exchange heads and rows."""
    shape = layout.shape_of(node.meta["val"])
    users = list(node.users)
    if len(shape) != 4 or len(users) != 1 or users[0].target not in PERMUTES:
        return False
    moved = layout.shape_of(users[0].meta["val"])
    return moved == (shape[0], shape[2], shape[1], shape[3])


def additive_mask(b: GraphBuilder, argument: Node) -> Tensor:
    """A mask to add to the scores; a constant boolean one becomes 0 and minus infinity."""
    if argument.meta["val"].dtype == torch.bool:
        keep = b.integer_constant(argument).constant
        assert keep is not None
        return b.constant(torch.zeros(keep.shape).masked_fill(~keep, -math.inf))
    return b.tensor(argument)


def causal_mask(b: GraphBuilder, query: Tensor, key: Tensor) -> Tensor:
    """Position ``i`` sees the keys 0 … ``i``."""
    rows, columns = query.shape[-2], key.shape[-2]
    if not isinstance(rows, int) or not isinstance(columns, int):
        # The largest mask, cut to the size of the run, would do; a slice to a dynamic size is
        # not in XNNPACK.
        raise LoweringError("its causal mask would have a dynamic size")
    allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
    return b.constant(torch.zeros(rows, columns).masked_fill(~allowed, -math.inf))


def _repeated_heads(b: GraphBuilder, tensor: Tensor, query: Tensor) -> Tensor:
    """Each head as often as queries share it: [..., H, L, E] → [..., H * n, L, E]."""
    heads, wanted = tensor.shape[-3], query.shape[-3]
    if not isinstance(heads, int) or not isinstance(wanted, int):
        raise LoweringError("its number of heads is dynamic")
    if heads == wanted:
        return tensor
    times = wanted // heads
    lead, tail = tensor.shape[:-2], tensor.shape[-2:]
    split = b.reshape(tensor, (*lead, 1, *tail))
    wide = replace(split, shape=(*lead, times, *tail))
    return b.reshape(wide, (*lead[:-1], wanted, *tail))


@operator("softmax", aten.softmax.int, aten._softmax.default, constraints=FLOATS)
def lower_softmax(b: GraphBuilder, node: Node) -> Tensor:
    return ex.softmax(b, b.tensor(node.args[0]), int(node.args[1]))  # type: ignore[arg-type]


@operator(
    "safe_softmax", aten._safe_softmax.default, constraints=FLOATS,
    notes="zeros where all is minus infinity",
)  # fmt: skip
def lower_safe_softmax(b: GraphBuilder, node: Node) -> Tensor:
    x, dim = b.tensor(node.args[0]), int(node.args[1])  # type: ignore[arg-type]
    shown = reductions.total(b, masked_rows.visible(b, x), [dim % x.rank] if x.rank else [], True)
    seen = b.unary(NodeKind.CLAMP, shown, None, (0.0, 1.0))
    filled = b.binary(NodeKind.MAXIMUM, masked_rows.floor_of(b, seen), x)
    return ex.multiply(b, ex.softmax(b, filled, dim), seen)
