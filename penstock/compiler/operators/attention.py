"""Scaled dot-product attention and softmax."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch.fx import Node

from penstock.compiler import expressions as ex
from penstock.compiler.arguments import arguments
from penstock.compiler.builder import GraphBuilder, LoweringError, Tensor
from penstock.compiler.operators.constraints import FLOATS, argument_is, is_constant, rank_fits
from penstock.compiler.operators.registry import operator

aten = torch.ops.aten


def _floats_but_mask(node: Node) -> str | None:
    """float32 throughout; a boolean mask must be constant (a rewrite makes others additive)."""
    named = arguments(node)
    for name in ("query", "key", "value"):
        dtype = named[name].meta["val"].dtype
        if dtype != torch.float32:
            return f"its {name} is {dtype}, XNNPACK's operators work on float32"
    mask = named["attn_mask"]
    if isinstance(mask, Node) and mask.meta["val"].dtype != torch.float32 and not is_constant(mask):
        return f"its mask is {mask.meta['val'].dtype} and computed at run time"
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
    if named["is_causal"]:
        mask = causal_mask(b, query, key)
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
    return ex.matmul(b, ex.softmax(b, scores, -1), value)


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
        raise LoweringError("a causal mask over a dynamic length")
    allowed = torch.ones(rows, columns, dtype=torch.bool).tril()
    return b.constant(torch.zeros(rows, columns).masked_fill(~allowed, -math.inf))


def _repeated_heads(b: GraphBuilder, tensor: Tensor, query: Tensor) -> Tensor:
    """Each head as often as queries share it: [..., H, L, E] → [..., H * n, L, E]."""
    heads, wanted = tensor.shape[-3], query.shape[-3]
    if not isinstance(heads, int) or not isinstance(wanted, int):
        raise LoweringError("a dynamic number of heads")
    if heads == wanted:
        return tensor
    times = wanted // heads
    lead, tail = tensor.shape[:-2], tensor.shape[-2:]
    split = b.reshape(tensor, (*lead, 1, *tail))
    wide = replace(split, shape=(*lead, times, *tail))
    return b.reshape(wide, (*lead[:-1], wanted, *tail))


@operator(
    "softmax",
    aten.softmax.int,
    aten._softmax.default,
    aten._safe_softmax.default,
    constraints=FLOATS,
)
def lower_softmax(b: GraphBuilder, node: Node) -> Tensor:
    return ex.softmax(b, b.tensor(node.args[0]), int(node.args[1]))  # type: ignore[arg-type]
