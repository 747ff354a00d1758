"""Complex tensors as pairs of real ones, while the calls on them are recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
REAL = {wide: part for part, wide in COMPLEX.items()}

#: A part of a number: ``None`` stands for 0 in the shape of the other part.
Part = Any


class NoRealForm(Exception):
    """An operator that is not known to be made of operators on real and imaginary parts."""


class Complex(torch.Tensor):
    """Two real tensors of one shape that go through operators as one complex tensor.

    ``whole`` is the complex tensor itself where an operator made one, ``stacked`` the two as a
    last dimension, where that exists: what reads them then need not put them together again.
    """

    re: Tensor
    im: Tensor
    whole: Tensor | None
    stacked: Tensor | None

    @staticmethod
    def __new__(
        cls, re: Tensor, im: Tensor, whole: Tensor | None = None, stacked: Tensor | None = None
    ) -> Complex:
        made: Complex = torch.Tensor._make_wrapper_subclass(
            cls, re.shape, dtype=COMPLEX[re.dtype], device=re.device
        )
        made.re, made.im, made.whole, made.stacked = re, im, whole, stacked
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Complex({self.re!r}, {self.im!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise NoRealForm


def is_complex(value: Any) -> bool:
    """Whether an argument is a complex tensor (as a pair), number or type."""
    return isinstance(value, (Complex, complex)) or (
        isinstance(value, torch.dtype) and value in REAL
    )


def parts(value: Any) -> tuple[Part, Part]:
    """The real and the imaginary part of an operand; ``None`` for a part that is not there."""
    if isinstance(value, Complex):
        return value.re, value.im
    if isinstance(value, complex):
        return value.real or None, value.imag or None
    return value, None


def joined(re: Part, im: Part, like: Tensor | None = None) -> Complex:
    """The pair of two parts, of which one at most is missing, broadcast to one shape."""
    if re is None and im is None:
        assert like is not None
        re = _zeros(like)
    if re is None:
        re = _zeros(im)
    elif im is None:
        im = _zeros(re)
    if not isinstance(re, Tensor):
        re = torch.full_like(im, re)
    elif not isinstance(im, Tensor):
        im = torch.full_like(re, im)
    re, im = (part if part.dtype in COMPLEX else part.to(torch.float32) for part in (re, im))
    if re.shape != im.shape:
        re, im = torch.broadcast_tensors(re, im)
    return Complex(re, im)


def times(left: Part, right: Part) -> Part:
    if left is None or right is None:
        return None
    for one, other in ((left, right), (right, left)):
        if not isinstance(one, Tensor) and one == 1:
            return other
        if not isinstance(one, Tensor) and one == -1:
            return -other
    return left * right


def plus(left: Part, right: Part) -> Part:
    if left is None or right is None:
        return right if left is None else left
    return left + right


def minus(left: Part, right: Part) -> Part:
    if right is None:
        return left
    return -right if left is None else left - right


def product(
    left: Any, right: Any, function: Callable[[Part, Part], Part] = times
) -> tuple[Part, Part]:
    """The parts of a product, and of all that is linear in two operands."""
    (a, b), (c, d) = parts(left), parts(right)

    def of(one: Part, other: Part) -> Part:
        return None if one is None or other is None else function(one, other)

    return minus(of(a, c), of(b, d)), plus(of(a, d), of(b, c))


def part_of(tree: Any, number: int) -> Any:
    """``tree`` with one part of each complex tensor, number and type in it."""

    def choose(value: Any) -> Any:
        if isinstance(value, Complex):
            return (value.re, value.im)[number]
        if isinstance(value, complex):
            return (value.real, value.imag)[number]
        if isinstance(value, torch.dtype):
            return REAL.get(value, value)
        return value

    return pytree.tree_map(choose, tree)


def zero_of(tree: Any) -> Any:
    """The imaginary part of values that may be real: zeros where they are."""

    def choose(value: Any) -> Any:
        if isinstance(value, (Complex, complex)):
            return value
        if isinstance(value, Tensor):
            return torch.zeros_like(value)
        return 0 if isinstance(value, (int, float)) else value

    return pytree.tree_map(choose, tree)


def paired(re: Any, im: Any) -> Any:
    """Pairs of what an operator gives for the two parts."""
    if isinstance(re, Tensor):
        return Complex(re, im)
    return type(re)(paired(*pair) for pair in zip(re, im, strict=True))


def _zeros(like: Any) -> Tensor:
    """A constant, or, if the size is dynamic, made by that alone: it does not wait for ``like``."""
    if all(isinstance(size, int) for size in like.shape):
        return torch.zeros_like(like)
    return torch.zeros(like.shape, dtype=like.dtype)
