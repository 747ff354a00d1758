"""Two values that stand for the same: :class:`Pair`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.tools.agreement import sqnr
from penstock.tools.compare.forms import Form, form_of
from penstock.tools.compare.layout import in_layout_of
from penstock.tools.compare.taps import Tap


@dataclass(frozen=True)
class Pair:
    """Positions of two values that stand for the same. ``within`` are the values of the first
    side that went into the same value of the other, which seems to hold the first in another
    ``form`` if there is one; ``within_b`` those of the second that went into one of the first."""

    a: int
    b: int
    within: tuple[int, ...] = ()
    form: Form | None = None
    within_b: tuple[int, ...] = ()


def pair_of(
    a: Sequence[Tap], b: Sequence[Tap], i: int, j: int, within: tuple[int, ...] = ()
) -> Pair:
    """The pair of ``a[i]`` and ``b[j]``, with the form in which the latter holds the former."""
    reference = a[i].array
    values = in_layout_of(reference, b[j].array)
    form = None if values is None else form_of(reference, values)
    return Pair(i, j, within, form)


def best_of(a: Sequence[Tap], b: Sequence[Tap], ours: Sequence[int], theirs: Sequence[int]) -> Pair:
    """Of two chains of values (:func:`chain_from`) the nearest pair that begins one of them: an
    operator of one side may hold what is several of the other's."""
    i, j = ours[0], theirs[0]
    near = {(n, j): ratio_of(a[n], b[j]) for n in ours}
    near |= {(i, n): ratio_of(a[i], b[n]) for n in theirs[1:]}
    best = max(near, key=near.__getitem__)
    if best[1] != j:
        return dataclasses.replace(pair_of(a, b, *best, (i,)), within_b=tuple(theirs))
    return pair_of(a, b, *best, tuple(ours))


def only_users(taps: Sequence[Tap]) -> list[int | None]:
    """For each value the only one that is computed from it, if that takes nothing else."""
    readers: list[list[int]] = [[] for _ in taps]
    for position, tap in enumerate(taps):
        for source in tap.reads:
            readers[source].append(position)
    return [
        found[0] if len(found) == 1 and len(taps[found[0]].reads) == 1 else None
        for found in readers
    ]


def chain_from(
    i: int, taps: Sequence[Tap], users: Sequence[int | None], stop: Callable[[int], bool]
) -> list[int]:
    """The value at ``i`` and what only goes on with it, of its size, up to where to ``stop``."""
    chain = [i]
    while (after := users[chain[-1]]) is not None and not stop(after):
        if taps[after].array.size != taps[i].array.size:
            break
        chain.append(after)
    return chain


def ratio_of(a: Tap, b: Tap) -> float:
    """How near ``b`` is to ``a``, in dB; minus infinity where they are not of one size."""
    values = in_layout_of(a.array, b.array)
    return -math.inf if values is None else sqnr(a.array, values)
