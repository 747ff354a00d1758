"""Which values of two sides belong together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Container, Iterator, Sequence

from penstock.tools.compare.by_values import by_values
from penstock.tools.compare.forms import FAR
from penstock.tools.compare.pairs import (
    Pair,
    best_of,
    chain_from,
    only_users,
    ratio_of,
)
from penstock.tools.compare.taps import Tap, counts, plain_name


def matched(a: Sequence[Tap], b: Sequence[Tap]) -> list[Pair]:
    """The values that stand for the same: of the same module and ATen operator, counted in order,
    and of one size. What is left in a module (where one side has an operator's decomposition) is
    matched by its values. Sides without origins are matched by their values, and what is left
    between these by kinds and sizes, in order.

    An operator of one side may hold several of the other's (a convolution its activation): of these
    the one that it agrees with best is its counterpart.
    """
    if not any(tap.origin.operator for tap in a) or not any(tap.origin.operator for tap in b):
        return by_values(a, b)
    ours, others = _places(a), _places(b)
    users, others_users = only_users(a), only_users(b)
    found = []

    def chain(i: int) -> list[int]:
        return chain_from(i, a, users, lambda after: _place(a[after]) in others)

    def other_chain(j: int) -> list[int]:
        return chain_from(j, b, others_users, lambda after: _place(b[after]) in ours)

    for place, positions in ours.items():
        theirs = others.get(place, [])
        sizes = [a[i].array.size for i in positions], [b[j].array.size for j in theirs]
        for block in difflib.SequenceMatcher(None, *sizes, autojunk=False).get_matching_blocks():
            for n in range(block.size):
                i, j = positions[block.a + n], theirs[block.b + n]
                found.append(best_of(a, b, chain(i), other_chain(j)))
    found += _by_value(a, b, found, chain, other_chain)
    return sorted(found, key=lambda pair: pair.b)


def _by_value(
    a: Sequence[Tap],
    b: Sequence[Tap],
    found: Sequence[Pair],
    chain: Callable[[int], list[int]],
    other_chain: Callable[[int], list[int]],
) -> Iterator[Pair]:
    """Values of one module and size that agree, of those that are in no pair; and those that are
    the only ones of their module and size."""
    taken = {i for pair in found for i in (pair.a, *pair.within)}
    left = _modules(a, taken)
    others = {j for pair in found for j in (pair.b, *pair.within_b)}
    for place, theirs in _modules(b, others).items():
        ours = left.get(place, [])
        for j in theirs:
            ratios = {i: ratio_of(a[i], b[j]) for i in ours}
            best = max(ratios, key=ratios.__getitem__, default=None)
            if best is not None and (ratios[best] >= FAR or len(ours) == len(theirs) == 1):
                yield best_of(a, b, chain(best), other_chain(j))


def _modules(taps: Sequence[Tap], taken: Container[int]) -> dict[tuple[str, int], list[int]]:
    found: dict[tuple[str, int], list[int]] = {}
    for position, tap in enumerate(taps):
        if position not in taken and tap.origin.operator and counts(tap):
            found.setdefault((tap.origin.module, tap.array.size), []).append(position)
    return found


def _place(tap: Tap) -> tuple[str, str]:
    """Module and operator; ``_softmax`` and ``view_copy`` are called ``softmax`` and ``view``."""
    return tap.origin.module, plain_name(tap.origin.operator).lstrip("_")


def _places(taps: Sequence[Tap]) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for position, tap in enumerate(taps):
        if tap.origin.operator and counts(tap):
            found.setdefault(_place(tap), []).append(position)
    return found
