"""Einstein sums of two tensors with more labels than XNNPACK's tensors have dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from penstock.graph.graph import MAX_TENSOR_DIMS

aten = torch.ops.aten


def einsum(equation: str, tensors: Sequence[Tensor], *, path: Any = None) -> Tensor:
    """PyTorch's definition gives each operand a dimension for each label, and so goes beyond what
    XNNPACK has where no operand does. Here labels that are alike (in both operands and the result,
    in one operand, summed over) are one dimension of a product of matrices."""
    terms, result = _parsed(equation)
    if not _many_labels(terms, result, tensors):
        return aten.einsum.default.decompose(equation, tensors, path=path)  # type: ignore[no-any-return]
    left, right = terms
    x, y = tensors
    sizes = {**dict(zip(right, y.shape, strict=True)), **dict(zip(left, x.shape, strict=True))}
    batch = [label for label in left if label in right and label in result]
    summed = [label for label in left if label in right and label not in result]
    rows = [label for label in left if label not in right and label in result]
    columns = [label for label in right if label not in left and label in result]
    x, left = _without(x, left, [*batch, *summed, *rows])
    y, right = _without(y, right, [*batch, *summed, *columns])

    def product(labels: Sequence[str]) -> Any:
        return math.prod(sizes[label] for label in labels)

    def arranged(value: Tensor, term: str, order: Sequence[str], shape: list[Any]) -> Tensor:
        return value.permute([term.index(label) for label in order]).reshape(shape)

    made = torch.bmm(
        arranged(x, left, [*batch, *rows, *summed], [product(n) for n in (batch, rows, summed)]),
        arranged(
            y, right, [*batch, *summed, *columns], [product(n) for n in (batch, summed, columns)]
        ),
    )
    order = [*batch, *rows, *columns]
    apart = made.reshape([sizes[label] for label in order])
    return apart.permute([order.index(label) for label in result])


def _parsed(equation: str) -> tuple[list[str], str]:
    """The labels of the operands, and of the result: by default those that come once, in order."""
    operands, arrow, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    if not arrow:
        labels = operands.replace(",", "").replace(".", "")
        result = "".join(sorted(label for label in set(labels) if labels.count(label) == 1))
    return terms, result


def _many_labels(terms: Sequence[str], result: str, tensors: Sequence[Tensor]) -> bool:
    """Whether these are two operands of enough different labels, none of them twice in one, each
    of one size."""
    if len(terms) != 2 or any("." in term for term in (*terms, result)):
        return False
    if any(len(set(term)) < len(term) for term in terms):
        return False
    sizes = dict(zip(terms[0], tensors[0].shape, strict=True))
    if not all(
        statically_known_true(sizes.setdefault(label, size) == size)
        for label, size in zip(terms[1], tensors[1].shape, strict=True)
    ):
        return False
    return len(sizes) > MAX_TENSOR_DIMS


def _without(x: Tensor, term: str, kept: Sequence[str]) -> tuple[Tensor, str]:
    """``x`` summed over the labels that nothing else has."""
    alone = [number for number, label in enumerate(term) if label not in kept]
    if not alone:
        return x, term
    return x.sum(alone), "".join(label for label in term if label in kept)
