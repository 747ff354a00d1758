"""Which values of two sides belong together, and in which layout."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.tools.agreement import sqnr
from penstock.tools.compare.taps import Tap

#: Arrays of more dimensions are not turned.
MOST_DIMS = 5


#: A value that is farther from the reference than this, in dB, may hold a multiple of it: a factor
#: of the model that went into the weights. It does where that makes so much of a difference.
FAR = 20.0


@dataclass(frozen=True)
class Pair:
    """Positions of two values that stand for the same. ``within`` are the values of the first
    side that went into the same value of the other; that holds ``factor`` times the first."""

    a: int
    b: int
    within: tuple[int, ...] = ()
    factor: float = 1.0


def matched(a: Sequence[Tap], b: Sequence[Tap]) -> list[Pair]:
    """The values that stand for the same: of the same module and ATen operator, counted in order,
    and of one size. What is left in a module (where one side has an operator's decomposition) is
    matched by its values. Sides without origins are matched by their kinds and sizes, in order.

    Where the first side is eager, an operator of the other may hold several of the model's (a
    convolution its activation): of these the one that it agrees with best is its counterpart.
    """
    if not any(tap.origin.operator for tap in a) or not any(tap.origin.operator for tap in b):
        return [Pair(i, j) for i, j in _by_kind(a, b)]
    others = _places(b)
    found = []
    for place, positions in _places(a).items():
        theirs = others.get(place, [])
        sizes = [a[i].array.size for i in positions], [b[j].array.size for j in theirs]
        for block in difflib.SequenceMatcher(None, *sizes, autojunk=False).get_matching_blocks():
            for n in range(block.size):
                found.append(_settled(a, b, positions[block.a + n], theirs[block.b + n], others))
    found += _by_value(a, b, found)
    return sorted(found, key=lambda pair: pair.b)


def _by_value(a: Sequence[Tap], b: Sequence[Tap], found: Sequence[Pair]) -> Iterator[Pair]:
    """Values of one module and size that agree, of those that are in no pair; and those that are
    the only ones of their module and size."""
    taken = {i for pair in found for i in (pair.a, *pair.within)}
    left = _modules(a, taken)
    for place, theirs in _modules(b, {pair.b for pair in found}).items():
        ours = left.get(place, [])
        for j in theirs:
            ratios = {i: _ratio(a[i], b[j]) for i in ours}
            best = max(ratios, key=ratios.__getitem__, default=None)
            if best is not None and (ratios[best] >= FAR or len(ours) == len(theirs) == 1):
                yield Pair(best, j, (best,))


def _modules(taps: Sequence[Tap], taken: Container[int]) -> dict[tuple[str, int], list[int]]:
    found: dict[tuple[str, int], list[int]] = {}
    for position, tap in enumerate(taps):
        if position not in taken and tap.origin.operator and counts(tap):
            found.setdefault((tap.origin.module, tap.array.size), []).append(position)
    return found


def _ratio(a: Tap, b: Tap) -> float:
    values = in_layout_of(a.array, b.array)
    return -math.inf if values is None else sqnr(a.array, values)


def _settled(
    a: Sequence[Tap], b: Sequence[Tap], i: int, j: int, others: Container[tuple[str, str]]
) -> Pair:
    """The pair of ``b[j]`` and the best of ``a[i]`` and what only goes on with it."""
    chain = [i]
    while (after := a[chain[-1]].user) is not None:
        if _place(a[after]) in others or a[after].array.size != a[i].array.size:
            break
        chain.append(after)
    ratios = [_ratio(a[position], b[j]) for position in chain]
    best = max(range(len(chain)), key=ratios.__getitem__)
    factor = 1.0
    if ratios[best] < FAR and any(tap.user is not None for tap in a):
        factor = _factor(a[chain[best]].array, b[j].array, ratios[best])
    return Pair(chain[best], j, tuple(chain), factor)


def _factor(reference: np.ndarray, array: np.ndarray, ratio: float) -> float:
    values = in_layout_of(reference, array)
    if values is None or not np.isfinite(reference).all() or not np.isfinite(values).all():
        return 1.0
    x, y = reference.astype(np.float64), values.astype(np.float64)
    power = float(np.square(x).sum())
    factor = float((x * y).sum()) / power if power else 1.0
    return factor if factor and sqnr(x * factor, y) > ratio + FAR else 1.0


def counts(tap: Tap) -> bool:
    """Whether a value belongs to the model: not to its quantization."""
    return not tap.origin.operator.startswith("quantized_decomposed.")


def _place(tap: Tap) -> tuple[str, str]:
    """Module and operator; ``_softmax`` and ``view_copy`` are called ``softmax`` and ``view``."""
    operator = tap.origin.operator.removeprefix("aten.").partition(".")[0]
    return tap.origin.module, operator.lstrip("_").removesuffix("_copy")


def _places(taps: Sequence[Tap]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for position, tap in enumerate(taps):
        if tap.origin.operator and counts(tap):
            found.setdefault(_place(tap), []).append(position)
    return found


def _by_kind(a: Sequence[Tap], b: Sequence[Tap]) -> list[tuple[int, int]]:
    first, second = ([(tap.kind, tap.array.size) for tap in side] for side in (a, b))
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return [(x.a + n, x.b + n) for x in blocks for n in range(x.size)]


def in_layout_of(reference: np.ndarray, array: np.ndarray) -> np.ndarray | None:
    """``array`` with the dimensions of ``reference``, in the order in which they agree best (NHWC
    and NCHW hold the same numbers); ``None`` where they have not the same sizes."""
    if array.size != reference.size:
        return None
    shape = tuple(size for size in reference.shape if size != 1)
    squeezed = array.squeeze()
    if squeezed.shape == shape and len(set(shape)) == len(shape):
        return array.reshape(reference.shape)
    turned = [squeezed.transpose(order) for order in _orders(squeezed.shape, shape)]
    if not turned:
        return array.reshape(reference.shape)
    best = turned[0]
    if len(turned) > 1:
        flat = reference.reshape(shape)
        best = max(turned, key=lambda one: sqnr(flat, one))
    return best.reshape(reference.shape)


def _orders(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(shape) == len(wanted) <= MOST_DIMS and sorted(shape) == sorted(wanted):
        for order in itertools.permutations(range(len(shape))):
            if tuple(shape[axis] for axis in order) == wanted:
                yield order
