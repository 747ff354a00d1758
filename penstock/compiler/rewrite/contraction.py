"""Einstein sums with more labels than XNNPACK's tensors have dimensions."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from penstock.graph.graph import MAX_TENSOR_DIMS

aten = torch.ops.aten

_ELLIPSIS = "..."


def einsum(equation: str, tensors: Sequence[Tensor], *, path: Any = None) -> Tensor:
    """PyTorch's definition gives each operand a dimension for each label, and so goes beyond what
    XNNPACK has where no operand does. Here labels that are alike (in both operands and the result,
    in one operand, summed over) are one dimension of a product of matrices, for two operands after
    the other."""
    terms, result = _parsed(equation, [tensor.dim() for tensor in tensors])
    named = _without_ones(tensors, terms)
    sizes = _sizes(named, result)
    if sizes is not None and _dynamic(sizes, result) > 1 and len(named) == 2:
        left, right = named
        made = _matmul(left, right, result, sizes) or _matmul(right, left, result, sizes)
        if made is not None:
            return _ordered(*made, result)
    if sizes is None or len(sizes) <= MAX_TENSOR_DIMS or len(named) < 2:
        return aten.einsum.default.decompose(equation, tensors, path=path)  # type: ignore[no-any-return]
    while len(named) > 1:
        second = _next(named, result)
        others = [term for place, (_, term) in enumerate(named) if place not in (0, second)]
        product = _product(named[0], named[second], {*result, *sum(others, [])}, sizes)
        named = [product, *(one for place, one in enumerate(named) if place not in (0, second))]
    return _ordered(*_summed(*named[0], result), result)


_Named = tuple[Tensor, list[str]]


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The labels of the operands, and of the result: by default those that come once, in order.
    What an ellipsis stands for has numbers for labels, counted from its end."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    most = 0

    def labels(term: str, count: int) -> list[str]:
        before, dots, after = term.partition(_ELLIPSIS)
        return [*before, *(str(number) for number in range(count, 0, -1) if dots), *after]

    named = []
    for term, rank in zip(terms, ranks, strict=True):
        covered = rank - len(term.replace(_ELLIPSIS, ""))
        most = max(most, covered if _ELLIPSIS in term else 0)
        named.append(labels(term, covered))
    if not arrow:
        letters = operands.replace(",", "").replace(".", "")
        once = sorted(label for label in set(letters) if letters.count(label) == 1)
        result = (_ELLIPSIS if _ELLIPSIS in operands else "") + "".join(once)
    return named, labels(result, most)


def _without_ones(tensors: Sequence[Tensor], terms: Sequence[list[str]]) -> list[_Named]:
    """The operands without dimensions of size 1 that are spread over another's."""
    wide = {
        label
        for tensor, term in zip(tensors, terms, strict=True)
        for label, size in zip(term, tensor.shape, strict=True)
        if not statically_known_true(size == 1)
    }
    named = []
    for tensor, term in zip(tensors, terms, strict=True):
        spread = [
            place
            for place, (label, size) in enumerate(zip(term, tensor.shape, strict=True))
            if label in wide and statically_known_true(size == 1)
        ]
        kept = [label for place, label in enumerate(term) if place not in spread]
        named.append((tensor.squeeze(spread) if spread else tensor, kept))
    return named


def _sizes(named: Sequence[_Named], result: Sequence[str]) -> dict[str, Any] | None:
    """The size of each label; ``None`` where one comes twice in an operand, has several, or none
    here."""
    sizes: dict[str, Any] = {}
    for tensor, term in named:
        if len(set(term)) < len(term):
            return None
        for label, size in zip(term, tensor.shape, strict=True):
            if not statically_known_true(sizes.setdefault(label, size) == size):
                return None
    return sizes if sizes.keys() >= set(result) else None


def _next(named: Sequence[_Named], result: Sequence[str]) -> int:
    """Which operand is multiplied with the first: the next one, as PyTorch does, if XNNPACK has
    tensors of as many dimensions as the product's, else whichever makes the fewest."""

    def dims(place: int) -> int:
        others = (term for other, (_, term) in enumerate(named) if other not in (0, place))
        read = {*result, *(label for term in others for label in term)}
        return len(read & {*named[0][1], *named[place][1]})

    return 1 if dims(1) <= MAX_TENSOR_DIMS else min(range(1, len(named)), key=dims)


def _dynamic(sizes: Mapping[str, Any], labels: Sequence[str]) -> int:
    return sum(not isinstance(sizes[label], int) for label in labels)


def _ordered(x: Tensor, term: Sequence[str], result: Sequence[str]) -> Tensor:
    order = [term.index(label) for label in result]
    return x if order == sorted(order) else x.permute(order)


def _kinds(
    left: Sequence[str], right: Sequence[str], read: Collection[str]
) -> tuple[list[str], list[str], list[str], list[str]]:
    """The labels of a product's operands: in both and ``read`` after it, in both and summed over,
    of the first alone, and of the second alone."""
    return (
        [label for label in left if label in right and label in read],
        [label for label in left if label in right and label not in read],
        [label for label in left if label not in right],
        [label for label in right if label not in left],
    )


def _matmul(
    first: _Named, second: _Named, result: Sequence[str], sizes: Mapping[str, Any]
) -> _Named | None:
    """The product of two operands in which dynamic dimensions stay what they are, since a reshape
    takes one of them: the second is the matrix of a layer of the first, or each is as many matrices
    as the other."""
    x, left = _summed(*first, {*second[1], *result})
    y, right = _summed(*second, {*left, *result})
    batch, within, rows, columns = _kinds(left, right, result)
    if not within or (batch and not rows):
        return None
    if batch:  # more rows are more matrices, each multiplied with the same
        batch, rows = [*rows[:-1], *batch], rows[-1:]
    if any(len(group) > 1 and _dynamic(sizes, group) for group in (within, columns)):
        return None
    x = _ordered(x, left, [*batch, *rows, *within])
    matrices = [label for label in batch if label in right]
    y = _ordered(y, right, [*matrices, *within, *columns])
    x = x.flatten(-len(within)) if len(within) > 1 else x
    y = y.flatten(len(matrices), len(matrices) + len(within) - 1) if len(within) > 1 else y
    if not columns:
        return torch.matmul(x, y.unsqueeze(-1)).squeeze(-1), [*batch, *rows]
    if len(columns) == 1:
        return torch.matmul(x, y), [*batch, *rows, *columns]
    made = torch.matmul(x, y.flatten(-len(columns)))
    return made.unflatten(-1, [sizes[label] for label in columns]), [*batch, *rows, *columns]


def _product(
    first: _Named, second: _Named, read: Collection[str], sizes: Mapping[str, Any]
) -> _Named:
    """The product of two operands, summed over the labels that are not ``read`` after it."""
    x, left = _summed(*first, {*second[1], *read})
    y, right = _summed(*second, {*left, *read})
    batch, within, rows, columns = _kinds(left, right, read)

    def matrices(value: Tensor, term: Sequence[str], *groups: Sequence[str]) -> Tensor:
        order = [term.index(label) for group in groups for label in group]
        shape = [math.prod(sizes[label] for label in group) for group in groups]
        return value.permute(order).reshape(shape)

    made = torch.bmm(
        matrices(x, left, batch, rows, within), matrices(y, right, batch, within, columns)
    )
    labels = [*batch, *rows, *columns]
    return made.reshape([sizes[label] for label in labels]), labels


def _summed(x: Tensor, term: Sequence[str], read: Collection[str]) -> _Named:
    """``x`` summed over the labels that nothing reads."""
    alone = [place for place, label in enumerate(term) if label not in read]
    return x.sum(alone) if alone else x, [label for label in term if label in read]
