"""Matching by what the values are, for files that do not say where their nodes come from."""

from __future__ import annotations

import bisect
import difflib
import math
from collections.abc import Container, Sequence

import numpy as np

from penstock.tools.compare.forms import FAR
from penstock.tools.compare.pairs import Pair, best_of, chain_from, only_users, pair_of, ratio_of
from penstock.tools.compare.taps import Tap, counts, plain_name

#: Candidates within so many dB of the best are as good.
AS_GOOD = 1.0


def by_values(a: Sequence[Tap], b: Sequence[Tap]) -> list[Pair]:
    """For each value of ``b`` the nearest of ``a``, if it is near; between these what is left, in
    order, by kinds and sizes."""
    near, users = _near(a, b), only_users(a)
    known = {i for pair in near for i in pair.within}
    left = [i for i, tap in enumerate(a) if i not in known and counts(tap)]
    found = list(near)
    taken = {pair.b for pair in near}
    anchors = [(-1, -1), *_in_order(near), (len(a), len(b))]
    for (i, j), (next_i, next_j) in zip(anchors, anchors[1:], strict=False):
        ours = left[bisect.bisect(left, i) : bisect.bisect_left(left, next_i)]
        theirs = [n for n in range(j + 1, next_j) if n not in taken and counts(b[n])]
        for here, there in _by_kind(a, b, ours, theirs):
            chain = chain_from(here, a, users, known.__contains__)
            found.append(best_of(a, b, chain, [there]))
    return sorted(found, key=lambda pair: pair.b)


def _near(a: Sequence[Tap], b: Sequence[Tap]) -> list[Pair]:
    sizes: dict[int, list[int]] = {}
    for i, tap in enumerate(a):
        if counts(tap):
            sizes.setdefault(tap.array.size, []).append(i)
    ours, theirs = [_norm(tap) for tap in a], [_norm(tap) for tap in b]
    # By the triangle inequality what is near has nearly the same norm.
    slack = 10 ** (-FAR / 20)
    found = []
    for j, tap in enumerate(b):
        if not counts(tap):
            continue
        candidates = [
            i
            for i in sizes.get(tap.array.size, ())
            if ours[i] and abs(ours[i] - theirs[j]) <= slack * ours[i]
        ]
        ratios = {i: ratio_of(a[i], tap) for i in candidates}
        best = max(ratios.values(), default=-math.inf)
        if best < FAR:
            continue
        same = tuple(i for i, ratio in ratios.items() if ratio >= best - AS_GOOD)
        alike = [i for i in same if a[i].kind == tap.kind]
        found.append(pair_of(a, b, (alike or same)[0], j, same))
    return found


def _norm(tap: Tap) -> float:
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.square(tap.array, dtype=np.float64).sum()))


def _in_order(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """The longest run of pairs that rises on both sides."""
    ends: list[int] = []  # of the runs by length: the position on the first side
    at: list[int] = []
    before: list[int] = []
    for n, pair in enumerate(pairs):
        length = bisect.bisect_left(ends, pair.a)
        before.append(at[length - 1] if length else -1)
        if length == len(ends):
            ends.append(pair.a)
            at.append(n)
        else:
            ends[length], at[length] = pair.a, n
    found = []
    n = at[-1] if at else -1
    while n >= 0:
        found.append((pairs[n].a, pairs[n].b))
        n = before[n]
    return found[::-1]


def _by_kind(
    a: Sequence[Tap], b: Sequence[Tap], ours: Sequence[int], theirs: Sequence[int]
) -> list[tuple[int, int]]:
    kinds = {_kind(a[i]) for i in ours}
    first = [(_kind(a[i]), a[i].array.size) for i in ours]
    second = [(_kind(b[j], kinds), b[j].array.size) for j in theirs]
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return [(ours[x.a + n], theirs[x.b + n]) for x in blocks for n in range(x.size)]


def _kind(tap: Tap, among: Container[str] | None = None) -> str:
    """The name of the node or kernel; or the ATen operator's, where that is ``among`` names and the
    former is not."""
    kind, operator = plain_name(tap.kind), plain_name(tap.origin.operator)
    return operator if among is not None and kind not in among and operator in among else kind
