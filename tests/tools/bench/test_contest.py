"""Turns and what is made of their times."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock.tools.bench.contest import Contest, Spread, contest


class Steady:
    """Stands in for a worker: each run takes ``nanoseconds``."""

    threads = 1

    def __init__(self, nanoseconds: Sequence[int], log: list[str], name: str) -> None:
        self._times, self._log, self._name = nanoseconds, log, name
        self._next = 0

    def time(self, key: str, runs: int) -> list[int]:
        self._log.append(self._name)
        found = [self._times[(self._next + i) % len(self._times)] for i in range(runs)]
        self._next += runs
        return found


def test_turns_go_both_ways() -> None:
    log: list[str] = []
    ten, twenty = Steady([10_000_000], log, "a"), Steady([20_000_000], log, "b")
    seen: list[float] = []
    found = contest(
        [("a", ten, ""), ("b", twenty, "")],  # type: ignore[list-item]
        seconds=0,
        clock=seen.append,
    )
    assert log[-10:] == list("abbaabbaab")
    assert len(found.rounds["a"]) == 5 and len(seen) == 10
    assert found.best("a") == 10 and found.ratio("b", "a") == Spread(2, 2, 2)


def test_quartiles() -> None:
    assert Spread.of([4, 1, 3, 2, 5]) == Spread(3, 1.5, 4.5)
    assert Spread.of([2, 1, 3]) == Spread(2, 1, 3)


def test_launches_are_merged() -> None:
    first = Contest({"a": [1.0], "b": [2.0], "c": [9.0]}, {"a": 1.0, "b": 2.0, "c": 9.0})
    second = Contest({"a": [3.0], "b": [4.0]}, {"a": 0.5, "b": 4.0})
    merged = Contest.merged([first, second])
    assert merged.rounds == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert merged.fastest == {"a": 0.5, "b": 2.0}
    assert merged.median("b") == pytest.approx(3.0)
