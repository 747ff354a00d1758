"""Places of the largest values, as rows of zeros and a 1: what operators by indices come to."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.delegate.operators.comparison import CONVERSIONS
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import is_zero
from penstock.compiler.fx.bounds import lower_bound
from penstock.compiler.fx.finiteness import SMALLEST, SOFTMAXES, may_be_nan
from penstock.compiler.fx.marks import PLACES_OF_LARGEST
from penstock.compiler.rewrite.twins import Maker, Number, Places, Twin
from penstock.compiler.rewrite.whole_numbers import Rule

aten = torch.ops.aten

#: So many are looked for among as many at most; more take a kernel less time.
MOST_FOUND = 8
LONGEST_ROW = 2048
#: Rows of which more are found: each value is compared with each other.
LONGEST_ORDERED = 32
LONGEST_SORTED = 16
#: A kernel tells the one largest at once: rows so long, or so many values.
LONGEST_OF_ONE = 64
MOST_OF_ONE = 1 << 14
#: What is gathered is looked for among so many.
LONGEST_GATHERED = 64
#: A table's rows are a product with the places: up to so many numbers for each.
WIDEST_ROW = 1024

_BOUNDED = {*SOFTMAXES, aten.sigmoid.default, aten.tanh.default, aten.clamp.default}
_PASSED_ON = {aten.gather.default, aten.view.default, aten.reshape.default, aten.unsqueeze.default}
_INTEGERS = (torch.int64, torch.int32)


# --- where they come from ----------------------------------------------------------------------


def _looked_for(
    m: Maker, node: Node, x: Any, k: Any, dim: Any, largest: bool, longest: int
) -> Node | None:
    """Rows for the ``k`` that are looked for, with ``dim`` kept, where that is no longer than
    ``longest``."""
    if not isinstance(x, Node) or x.op == "get_attr" or x.meta["val"].dtype is not torch.float32:
        return None
    if not isinstance(k, int) or not isinstance(dim, int) or x.meta["val"].dim() == 0:
        return None
    size = x.meta["val"].shape[dim]
    if not isinstance(size, int) or not 1 <= k <= size or may_be_nan(x):
        return None
    if size > longest:
        return None
    return m.call(node, PLACES_OF_LARGEST, x, k, dim % x.meta["val"].dim(), largest)


def _of_extreme(largest: bool) -> Rule:
    """``argmax``, ``argmin``: over one dimension, or over all."""

    def rule(m: Maker, node: Node) -> Places | None:
        given = arguments(node)
        x, dim = given["self"], given["dim"]
        if dim is None:
            if x.meta["val"].dim() != 1:
                return None
            dim = 0
        rows = _looked_for(m, node, x, 1, dim, largest, _longest_of_one(x))
        return None if rows is None else Places(m.reshaped(node, rows, _extent(rows)))

    return rule


def _longest_of_one(x: Node) -> int:
    count = layout.product(layout.shape_of(x.meta["val"]))
    return LONGEST_ROW if isinstance(count, int) and count <= MOST_OF_ONE else LONGEST_OF_ONE


def _of_several(m: Maker, node: Node) -> Places | None:
    given = arguments(node)
    k, largest = given["k"], bool(given["largest"])
    few = isinstance(k, int) and k <= MOST_FOUND
    longest = LONGEST_ROW if few else LONGEST_ORDERED
    rows = _looked_for(m, node, given["self"], k, given["dim"], largest, longest)
    return None if rows is None else Places(rows)


def _of_order(m: Maker, node: Node) -> Places | None:
    given = arguments(node)
    x, dim = given["self"], given["dim"]
    size = x.meta["val"].shape[dim] if x.meta["val"].dim() else None
    rows = _looked_for(m, node, x, size, dim, bool(given["descending"]), LONGEST_SORTED)
    return None if rows is None else Places(rows)


def _of_best(largest: bool) -> Rule:
    """``max`` and ``min`` of a dimension."""

    def rule(m: Maker, node: Node) -> Places | None:
        given = arguments(node)
        x = given["self"]
        rows = _looked_for(m, node, x, 1, given["dim"], largest, _longest_of_one(x))
        return None if rows is None else Places(rows)

    return rule


def _extent(rows: Node) -> int:
    return int(rows.meta["val"].shape[-1])


SOURCES: dict[Any, Rule] = {
    aten.argmax.default: _of_extreme(True),
    aten.argmin.default: _of_extreme(False),
    aten.topk.default: _of_several,
    aten.max.dim: _of_best(True),
    aten.min.dim: _of_best(False),
    aten.sort.default: _of_order,
    aten.sort.stable: _of_order,
    aten.argsort.default: _of_order,
    aten.argsort.stable: _of_order,
}


# --- what follows ------------------------------------------------------------------------------


def _result(m: Maker, node: Node) -> Twin | Node | None:
    """Values or places of ``topk``, ``sort``, ``max`` or ``min`` of a dimension."""
    source: Any = node.args[0]
    places = m.twins[source]
    assert isinstance(places, Places)
    if node.args[1] == 1:
        return Places(m.reshaped(node, places.rows, places.extent))
    given = arguments(source)
    x, dim = given["self"], given["dim"]
    if source.target in (aten.max.dim, aten.min.dim):
        extreme = aten.amax.default if source.target is aten.max.dim else aten.amin.default
        return m.call(node, extreme, x, [dim], given["keepdim"])
    return _picked(m, node, places.rows, x, dim)


def _picked(m: Maker, node: Node, rows: Node, x: Node, dim: int) -> Node:
    """The values of ``x`` at the places of its dimension ``dim`` that ``rows`` have."""
    dim %= x.meta["val"].dim()
    line = m.call(node, aten.movedim.int, x, dim, -1)
    line = m.call(node, aten.unsqueeze.default, line, dim)
    return m.call(node, aten.sum.dim_IntList, _kept(m, node, rows, line, x), [-1])


def _kept(m: Maker, node: Node, rows: Node, values: Node, of: Any) -> Node:
    """``values`` where ``rows`` are 1, else zero."""
    if _is_finite(m, of):
        return m.call(node, aten.mul.Tensor, rows, values)
    return m.call(node, aten.where.ScalarOther, m.mask(node, rows), values, 0.0)


def _is_finite(m: Maker, item: Any) -> bool:
    """Whether it is a number whatever the inputs are, so that nothing comes of it times zero."""
    constant = m.known(item)
    if constant is not None:
        return bool(constant.isfinite().all())
    if not isinstance(item, Node) or item.op != "call_function":
        return False
    if item.target in _PASSED_ON:
        return _is_finite(m, item.args[0])
    if item.target is operator.getitem:
        source: Any = item.args[0]
        values = bool(item.args[1] == 0 and source.target in SOURCES)
        return values and _is_finite(m, source.args[0])
    if item.target is aten.div.Tensor:
        return _is_finite(m, item.args[0]) and lower_bound(item.args[1]) >= SMALLEST
    return item.target in _BOUNDED


def _places(
    m: Maker, node: Node, index: Any, extent: Any, *, from_end: bool = False
) -> Node | None:
    """The rows for an index into ``extent`` rows; ``from_end``: negative ones count from the end.
    Others than these are errors in eager, and no rows here."""
    twin = m.twins.get(index) if isinstance(index, Node) else None
    if twin is None or not isinstance(extent, int):
        return None
    if isinstance(twin, Places):
        return twin.rows if twin.extent == extent else None
    if from_end and twin.least < 0 or extent > LONGEST_ORDERED:
        return None
    if index.meta["val"].dtype not in _INTEGERS:
        return None
    column = m.call(node, aten.unsqueeze.default, twin.value, -1)
    numbers = m.constant(node, torch.arange(extent, dtype=torch.float32))
    return m.numbers(node, m.call(node, aten.eq.Tensor, column, numbers))


def _moved(m: Maker, node: Node) -> Places | None:
    places = m.twins.get(node.args[0])  # type: ignore[arg-type]
    if not isinstance(places, Places):
        return None
    source: Any = node.args[0]
    rank, rows = source.meta["val"].dim(), places.rows
    if node.target in (*CONVERSIONS, aten.clone.default, aten.contiguous.default):
        return places if node.meta["val"].dtype in _INTEGERS else None
    if node.target is aten.permute.default:
        order = [int(dim) % rank for dim in node.args[1]]  # type: ignore[union-attr, arg-type]
        return Places(m.call(node, node.target, rows, [*order, rank]))
    if node.target is aten.transpose.int:
        swapped = [int(dim) % rank for dim in node.args[1:3]]  # type: ignore[arg-type]
        return Places(m.call(node, node.target, rows, *swapped))
    if node.target in (aten.select.int, aten.slice.Tensor):
        dim = int(node.args[1]) % rank if len(node.args) > 1 else 0  # type: ignore[arg-type]
        return Places(m.call(node, node.target, rows, dim, *node.args[2:]))
    if node.target is aten.expand.default:
        shape = m.sizes.replace(list(node.meta["val"].shape))
        ahead = len(shape) - rank
        if ahead:
            given = m.sizes.replace(list(source.meta["val"].shape))
            rows = m.call(node, aten.reshape.default, rows, [*[1] * ahead, *given, places.extent])
        return Places(m.call(node, aten.expand.default, rows, [*shape, places.extent]))
    if node.target is aten.repeat.default:
        times: Any = node.args[1]
        before = layout.shape_of(source.meta["val"])
        ahead = len(times) - rank
        sizes = (*[1] * ahead, *before)
        if any(number != 1 and size != 1 for number, size in zip(times, sizes, strict=True)):
            return Places(m.call(node, aten.repeat.default, rows, [*times, 1]))
        shape = m.sizes.replace(list(node.meta["val"].shape))
        if ahead:
            given = m.sizes.replace(list(source.meta["val"].shape))
            rows = m.call(node, aten.reshape.default, rows, [*[1] * ahead, *given, places.extent])
        return Places(m.call(node, aten.expand.default, rows, [*shape, places.extent]))
    return Places(m.reshaped(node, rows, places.extent))


def _one_hot(m: Maker, node: Node) -> Number | None:
    count = arguments(node)["num_classes"]
    rows = _places(m, node, node.args[0], count)
    return None if rows is None else Number(rows, 0, 1)


def _equal(m: Maker, node: Node) -> Number | None:
    """To a number, or to all of them in a row."""
    places, other = m.twins.get(node.args[0]), node.args[1]  # type: ignore[arg-type]
    if not isinstance(places, Places):
        return None
    if isinstance(other, int) and not isinstance(other, bool):
        if not 0 <= other < places.extent:
            return None
        hit = m.call(node, aten.select.int, places.rows, -1, other)
    else:
        row, index = m.known(other), node.args[0].meta["val"]  # type: ignore[union-attr]
        if row is None or row.dtype not in _INTEGERS or not 1 <= row.dim() <= index.dim():
            return None
        numbers = torch.arange(places.extent)
        flat = row.reshape(-1)
        if index.shape[-1] != 1 or not torch.equal(flat, numbers) or row.shape[-1] != len(flat):
            return None
        hit = m.call(node, aten.squeeze.dim, places.rows, -2)
    if node.target in (aten.ne.Scalar, aten.ne.Tensor):
        hit = m.call(node, aten.rsub.Scalar, hit, 1.0)
    return Number(hit, 0, 1)


def _from_table(
    m: Maker, node: Node, table: Any, index: Any, *, from_end: bool = False
) -> Node | None:
    """Rows of a constant: a product, exact because all but one of its terms are zero."""
    constant = m.known(table)
    if constant is None or constant.dtype is not torch.float32 or constant.dim() == 0:
        return None
    if constant.numel() > WIDEST_ROW * constant.shape[0] or not bool(constant.isfinite().all()):
        return None
    rows = _places(m, node, index, int(constant.shape[0]), from_end=from_end)
    if rows is None:
        return None
    flat = m.constant(node, constant.reshape(constant.shape[0], -1).contiguous())
    return m.reshaped(node, m.call(node, aten.matmul.default, rows, flat))


def _embedded(m: Maker, node: Node) -> Node | None:
    return _from_table(m, node, *node.args[:2])


def _selected(m: Maker, node: Node) -> Node | None:
    table, dim, index = node.args[:3]
    return _from_table(m, node, table, index) if dim == 0 else None


def _indexed(m: Maker, node: Node) -> Node | None:
    """A constant's rows; or one of each row: ``x[arange(n), places]``."""
    x, indices = node.args[:2]
    assert isinstance(x, Node) and isinstance(indices, Sequence)
    if len(indices) == 1:
        return _from_table(m, node, x, indices[0], from_end=True)
    if len(indices) != 2 or x.meta["val"].dtype is not torch.float32 or x.op == "get_attr":
        return None
    each, index = m.known(indices[0]), indices[1]
    assert isinstance(index, Node)
    size, extent = x.meta["val"].shape[:2]
    if each is None or each.dtype not in _INTEGERS or not isinstance(size, int):
        return None
    if not torch.equal(each, torch.arange(size)):
        return None
    rows = _places(m, node, index, extent, from_end=True)
    if rows is None or index.meta["val"].dim() != 1:
        return None
    for _ in range(x.meta["val"].dim() - 2):
        rows = m.call(node, aten.unsqueeze.default, rows, -1)
    return m.call(node, aten.sum.dim_IntList, _kept(m, node, rows, x, x), [1])


def _same_but(left: Node, right: Node, dim: int) -> bool:
    """Whether the shapes are the same in all dimensions but ``dim``."""
    one, other = (layout.shape_of(node.meta["val"]) for node in (left, right))
    return len(one) == len(other) and all(
        place == dim or layout.same(a, b)
        for place, (a, b) in enumerate(zip(one, other, strict=True))
    )


def _gathered(m: Maker, node: Node) -> Node | None:
    given = arguments(node)
    x, dim = given["self"], given["dim"]
    index: Node = given["index" if "index" in given else "indices"]
    if dim is None or x.meta["val"].dtype is not torch.float32 or not x.meta["val"].dim():
        return None
    dim %= x.meta["val"].dim()
    if not _same_but(x, index, dim):
        return None
    rows = _places(m, node, index, x.meta["val"].shape[dim])
    if rows is None or _extent(rows) > LONGEST_GATHERED:
        return None
    twin = m.twins[index]
    if isinstance(twin, Number) and x.op != "get_attr" and may_be_nan(x):
        return None
    return _picked(m, node, rows, x, dim)


def _scattered(m: Maker, node: Node) -> Twin | Node | None:
    """Into zeros, or into anything: places differ from each other."""
    given = arguments(node)
    base, index, dim = given["self"], given["index"], given["dim"]
    if not isinstance(m.twins.get(index), Places) or not base.meta["val"].dim():
        return None
    dim %= base.meta["val"].dim()
    rows = _places(m, node, index, base.meta["val"].shape[dim])
    if rows is None or not _same_but(base, index, dim):
        return None
    source: Any = given["src" if "src" in given else "value"]

    def written(kept: Node) -> Node:
        total = m.call(node, aten.sum.dim_IntList, kept, [dim])
        return m.call(node, aten.movedim.int, total, -1, dim)

    hit = written(rows)
    empty = is_zero(m.module, base)
    if base.meta["val"].dtype is not torch.float32:
        one = not isinstance(source, Node) and source == 1
        return Number(hit, 0, 1) if empty and one else None
    if not isinstance(source, Node):
        if empty:
            return hit if source == 1 else m.call(node, aten.mul.Tensor, hit, float(source))
        filled = m.mask(node, hit)
        return m.call(node, aten.masked_fill.Scalar, base, filled, float(source))
    if source.meta["val"].dtype is not torch.float32 or not _same_but(source, index, -1):
        return None
    column = m.call(node, aten.unsqueeze.default, source, -1)
    sums = written(_kept(m, node, rows, column, source))
    if empty:
        return sums
    if node.target is aten.scatter_add.default:
        return m.call(node, aten.add.Tensor, base, sums)
    return m.call(node, aten.where.self, m.mask(node, hit), sums, base)


_MOVES = (
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.unsqueeze.default,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.permute.default,
    aten.transpose.int, aten.select.int, aten.slice.Tensor, aten.expand.default,
    aten.repeat.default, aten.flatten.using_ints, aten.clone.default, aten.contiguous.default,
    *CONVERSIONS,
)  # fmt: skip

RULES: dict[Any, Rule] = {
    operator.getitem: _result,
    **dict.fromkeys(_MOVES, _moved),
    **dict.fromkeys((aten.eq.Scalar, aten.eq.Tensor, aten.ne.Scalar, aten.ne.Tensor), _equal),
    aten.one_hot.default: _one_hot,
    aten.embedding.default: _embedded,
    aten.index_select.default: _selected,
    aten.index.Tensor: _indexed,
    **dict.fromkeys((aten.gather.default, aten.take_along_dim.default), _gathered),
    **dict.fromkeys(
        (aten.scatter.src, aten.scatter.value, aten.scatter_add.default), _scattered
    ),
}  # fmt: skip
