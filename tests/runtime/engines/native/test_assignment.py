"""The assignment of nodes to engines, against all assignments that there are."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Sequence

import pytest

from penstock.runtime.engines.native.assignment import assigned

Crossing = tuple[int, Sequence[int], float]


def cost(ours: set[int], gains: Sequence[float], values: Sequence[Crossing]) -> float:
    total = -sum(gain for node, gain in enumerate(gains) if node in ours and gain != math.inf)
    for maker, readers, price in values:
        total += price * any((maker in ours) != (reader in ours) for reader in readers)
    return total


def least(gains: Sequence[float], values: Sequence[Crossing]) -> float:
    free = [node for node, gain in enumerate(gains) if not math.isinf(gain)]
    fixed = {node for node, gain in enumerate(gains) if gain == math.inf}
    return min(
        cost(fixed | {n for n, here in zip(free, chosen, strict=True) if here}, gains, values)
        for chosen in itertools.product((False, True), repeat=len(free))
    )


@pytest.mark.parametrize("seed", range(60))
def test_no_assignment_costs_less(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.randint(1, 10)
    gains = [rng.choice([rng.uniform(-20, 20), 0.0, math.inf, -math.inf]) for _ in range(size)]
    values = []
    for maker in range(size):
        readers = [reader for reader in range(maker + 1, size) if rng.random() < 0.35]
        readers += readers[:1] * rng.randint(0, 1)  # both of its inputs
        values.append((maker, readers, rng.uniform(0, 15)))
    ours = assigned(gains, values)
    assert all((node in ours) == (gain > 0) for node, gain in enumerate(gains) if math.isinf(gain))
    assert cost(ours, gains, values) == pytest.approx(least(gains, values))


def test_what_a_cut_costs_decides() -> None:
    theirs = -math.inf
    for price, found in ((9.0, {1}), (11.0, set())):
        assert assigned([theirs, 20.0, theirs], [(0, [1], price), (1, [2], price)]) == found
    # A node between two of ours joins them, though it is slower there.
    assert assigned([8.0, -5.0, 8.0], [(0, [1], 4.0), (1, [2], 4.0)]) == {0, 1, 2}
    # A value that several others read crosses once.
    assert assigned([20.0, theirs, theirs], [(0, [1, 2], 15.0)]) == {0}
    # Where it makes no difference, the graph stays with XNNPACK.
    assert assigned([0.0, 0.0], [(0, [1], 1.0)]) == set()


def test_large_graphs_cost_little() -> None:
    rng = random.Random(0)
    gains = [rng.choice([rng.uniform(-20, 20), -math.inf]) for _ in range(3000)]
    values = [(n, [n + 1, min(n + 3, 2999)], rng.uniform(0, 15)) for n in range(2999)]
    start = time.process_time()
    assert assigned(gains, values)
    assert time.process_time() - start < 2
