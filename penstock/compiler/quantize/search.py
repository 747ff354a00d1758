"""Finds a small set of operators to keep in float, with few trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field

Floats = frozenset[str]

#: Where no union of steps reaches the target, so many operators are tried alone in int8.
LAST_RESORTS = 8

#: After so many operators in a row that cannot be int8, those expected to be worse are not tried.
PATIENCE = 5


class OutOfTrials(Exception):
    """There have been as many trials as were allowed."""


@dataclass
class Search:
    """``score`` gives what a set in float is worth (``None``: nothing would be quantized), and
    ``target`` is to be reached. It is called for no set twice."""

    score: Callable[[Floats], float | None]
    target: float
    trials: int
    #: The error that is expected with a set in float; only its order counts.
    harm: Callable[[Floats], float] = lambda _floats: 0.0
    #: Told of each trial.
    advance: Callable[[], None] = lambda: None
    known: dict[Floats, float] = field(default_factory=dict)
    tried: int = 0
    #: The best score of sets that do not reach the target.
    nearest: float = -math.inf
    nearest_size: int = 0

    def reaches(self, floats: Floats) -> bool:
        """Whether the target is reached with ``floats`` in float."""
        if floats not in self.known:
            if self.tried >= self.trials:
                raise OutOfTrials
            self.tried += 1
            self.advance()
            found = self.score(floats)
            self.known[floats] = -math.inf if found is None else found
        value = self.known[floats]
        if self.target > value > self.nearest:
            self.nearest, self.nearest_size = value, len(floats)
        return value >= self.target

    def fewest(
        self, steps: Sequence[Floats], guess: int, alone: Set[str] = frozenset()
    ) -> Floats | None:
        """Of the unions of the first steps, tried around ``guess`` steps, the smallest that reaches
        the target, less what it does not need; ``None`` where none does, and leaving one operator
        alone of ``alone`` in int8 does not either."""
        unions = [frozenset[str]()]
        for step in steps:
            unions.append(unions[-1] | step)
        found = self._smallest(unions, guess)
        if found is not None:
            return self._without_needless(unions[found], steps[:found])
        last = self._all_but_one(unions[-1], [n for s in steps for n in sorted(s) if n in alone])
        return None if last is None else self._without_needless(last, steps)

    def _all_but_one(self, everything: Floats, order: Sequence[str]) -> Floats | None:
        """The last in ``order`` do least harm in int8."""
        try:
            for name in order[: -LAST_RESORTS - 1 : -1]:
                if self.reaches(everything - {name}):
                    return everything - {name}
        except OutOfTrials:
            pass
        return None

    def _smallest(self, unions: Sequence[Floats], guess: int) -> int | None:
        low, high = 0, None  # unions[low] does not reach it, unions[high] does
        step, place = 1, max(1, min(guess, len(unions) - 1))
        try:
            if self.reaches(unions[0]):
                return 0
            while high is None:
                if self.reaches(unions[place]):
                    high = place
                elif place == len(unions) - 1:
                    return None
                else:
                    low, place = place, min(place + step, len(unions) - 1)
                    step *= 2
            # The guess is mostly near: look below it in growing steps first.
            step = 1
            while high - low > 1:
                place = max(high - step, (low + high) // 2) if step else (low + high) // 2
                if self.reaches(unions[place]):
                    high, step = place, 2 * step
                else:
                    low, step = place, 0
        except OutOfTrials:
            pass
        return high

    def _without_needless(self, floats: Floats, steps: Sequence[Floats]) -> Floats:
        """Takes out what can be int8 after all, one by one, what is expected to do least harm
        first."""
        late = {name: -place for place, step in enumerate(steps) for name in step}
        needed: set[str] = set()
        failures = 0
        try:
            while failures < PATIENCE and (left := floats - needed):
                name = min(left, key=lambda n: (self.harm(floats - {n}), late.get(n, 0), n))
                if self.reaches(floats - {name}):
                    floats, failures = floats - {name}, 0
                else:
                    needed.add(name)
                    failures += 1
        except OutOfTrials:
            pass
        return floats
