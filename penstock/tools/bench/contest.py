"""Timing several workers by turns: :func:`contest`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from penstock.tools.bench.workers import Worker

#: Where a process's memory happens to lie makes 1 to 2 %: each runtime is started so often.
LAUNCHES = 3
#: Threads that wait for more work keep a processor busy for some milliseconds after a run: the
#: next one's turn begins when they sleep.
REST = 0.02
#: Nobody's turn counts before it has run for so many seconds, and twice.
WARM_UP = 0.2

#: Called with the seconds that each turn took.
Clock = Callable[[float], None]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        found = sorted(values)
        if len(found) < 4:
            return Spread(statistics.median(found), found[0], found[-1])
        low, middle, high = statistics.quantiles(found, n=4)
        return Spread(middle, low, high)


@dataclass(frozen=True)
class Contest:
    """Times of several contestants in one interleaved run, in milliseconds: the median of each
    round, and the best single run of all."""

    rounds: dict[str, list[float]]
    fastest: dict[str, float]

    @staticmethod
    def merged(contests: Sequence[Contest]) -> Contest:
        """Several launches as one; those who were in all of them."""
        names = [n for n in contests[0].rounds if all(n in one.rounds for one in contests)]
        return Contest(
            {name: [t for one in contests for t in one.rounds[name]] for name in names},
            {name: min(one.fastest[name] for one in contests) for name in names},
        )

    def best(self, name: str) -> float:
        return self.fastest[name]

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def spread(self, name: str) -> Spread:
        return Spread.of(self.rounds[name])

    def ratio(self, name: str, against: str) -> Spread:
        """The rounds' times of ``name`` over those of ``against``."""
        pairs = zip(self.rounds[name], self.rounds[against], strict=True)
        return Spread.of(a / b for a, b in pairs)


def contest(
    contestants: Sequence[tuple[str, Worker, str]],
    *,
    seconds: float = 8.0,
    block: float = 0.03,
    clock: Clock = lambda _: None,
) -> Contest:
    """Times ``(name, worker, key)`` by turns: A B C, C B A, A B C ... until the turns took
    ``seconds``, at least five rounds. Each is warmed up first.

    A turn is as many runs as fit into ``block`` seconds, at least one; its median counts.
    """
    runs = {name: _warm(worker, key, block) for name, worker, key in contestants}
    rounds: dict[str, list[float]] = {name: [] for name, _, _ in contestants}
    fastest = dict.fromkeys(rounds, float("inf"))
    rest = REST if any(worker.threads > 1 for _, worker, _ in contestants) else 0.0
    count, spent = 0, 0.0
    while contestants and (count < 5 or spent < seconds):
        # Every second round goes the other way, so that no one always follows the same one.
        for name, worker, key in contestants if count % 2 == 0 else reversed(contestants):
            time.sleep(rest)
            start = time.perf_counter()
            times = worker.time(key, runs[name])
            turn = time.perf_counter() - start
            rounds[name].append(statistics.median(times) / 1e6)
            fastest[name] = min(fastest[name], min(times) / 1e6)
            spent += turn
            clock(turn)
        count += 1
    return Contest(rounds, fastest)


def _warm(worker: Worker, key: str, block: float) -> int:
    """Runs a program until it is warm; gives the number of runs that fill ``block`` seconds."""
    times = worker.time(key, 2)
    while sum(times) < WARM_UP * 1e9:
        times += worker.time(key, min(len(times), 64))
    return max(1, int(block * 1e9 / statistics.median(times)))
