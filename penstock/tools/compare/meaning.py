"""Which pairs of values mean the same: :func:`settle`.

An error does not vanish: what is computed from a wrong value is wrong too. So where what follows
from a value agrees far better than it does, it was no error: a pass left something else in
its place (a bias that softmax takes away again, a scale that is in the weights), or the two were
matched wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.tools.compare.sums import Sums

#: By how many dB what follows must be better, beyond what an average takes away of noise; and by
#: how many where the two values are made by nodes of different kinds.
RECOVERED, RECOVERED_OTHER_KIND = 20.0, 10.0


#: What follows from a value that is wrong in so large a part is not wrong in as few places as this.
WRONG_EVERYWHERE, WRONG_IN_PLACES = 0.9, 0.3
#: An end of the program, in place of a pair.
END = -1


@dataclass(frozen=True)
class Compared:
    """A pair after the samples: ``plain`` compares the values as they stand, ``formed`` in the form
    that they seem to have, if that is another; no error has a form that is ``certain``. ``reads``
    are the positions of the pairs that it is computed from. ``size`` is its number of elements,
    ``discrete`` says that it is made of integers or truth values, ``joins`` that it is a sum or a
    concatenation, ``alike`` that nodes of one kind make it on both sides."""

    plain: Sums
    formed: Sums | None
    certain: bool
    reads: tuple[int, ...]
    size: int
    discrete: bool
    joins: bool
    alike: bool


@dataclass(frozen=True)
class Meaning:
    """What a pair is: to be compared by ``sums``, those of its form if ``formed``; or
    ``left_out``, where what follows from it agrees, to ``after`` dB at least. ``either``: it is
    wrong, or it has its form, which agrees, and what follows from it is wrong."""

    sums: Sums
    formed: bool = False
    either: bool = False
    left_out: bool = False
    after: float = -math.inf


def settle(pairs: Sequence[Compared], ends: Sums | None, threshold_db: float) -> list[Meaning]:
    """What each pair is. The pairs stand in the order in which they are computed; what nothing
    reads goes into ``ends``, the worst output (None where an output is of integers, which may be
    equal by chance)."""
    return _Settling(pairs, ends, threshold_db).settled()


class _Settling:
    def __init__(self, pairs: Sequence[Compared], ends: Sums | None, threshold: float) -> None:
        self.pairs, self.ends, self.threshold = pairs, ends, threshold
        self.readers: list[list[int]] = [[] for _ in pairs]
        for position, pair in enumerate(pairs):
            for source in pair.reads:
                self.readers[source].append(position)
        self.suspects = {n for n, pair in enumerate(pairs) if self._is_suspect(pair)}
        self.found: dict[int, Meaning] = {}

    def _is_suspect(self, pair: Compared) -> bool:
        certain = pair.formed is not None and pair.certain and self._agrees(pair.formed)
        return not certain and not self._agrees(pair.plain)

    def _agrees(self, sums: Sums | None) -> bool:
        return sums is not None and sums.sqnr_db >= self.threshold

    def settled(self) -> list[Meaning]:
        for position in range(len(self.pairs) - 1, -1, -1):
            self.found[position] = self._meaning(position)
        return [self.found[position] for position in range(len(self.pairs))]

    def _meaning(self, position: int) -> Meaning:
        pair = self.pairs[position]
        formed = pair.formed if self._agrees(pair.formed) else None
        if formed is not None and pair.certain:
            return Meaning(formed, formed=True)
        if formed is None and position not in self.suspects:
            return Meaning(pair.plain)
        after = self._after(position)
        if after is None:
            return Meaning(pair.plain, either=formed is not None and position in self.suspects)
        if formed is not None:
            return Meaning(formed, formed=True)
        return Meaning(pair.plain, left_out=True, after=after)

    def _behind(self, position: int) -> set[int]:
        """The next pairs behind one that are not left out."""
        found: set[int] = set()
        pending = list(self.readers[position]) or [END]
        seen = set()
        while pending:
            reader = pending.pop()
            if reader in seen:
                continue
            seen.add(reader)
            if reader != END and self.found[reader].left_out:
                pending += self.readers[reader] or [END]
            else:
                found.add(reader)
        return found

    def _after(self, position: int) -> float | None:
        """How near what follows from a pair is, where that shows that there is no error in it."""
        pair, recovered = self.pairs[position], []
        for reader in self._behind(position):
            sums = self.ends if reader == END else self.found[reader].sums
            if sums is None or (reader != END and self.pairs[reader].discrete):
                continue  # integers and truth values may be equal by chance
            if self._recovers(pair, sums, None if reader == END else self.pairs[reader]) or (
                self._agrees(pair.formed)
                and pair.plain.wrong_share >= WRONG_EVERYWHERE
                and sums.wrong_share <= WRONG_IN_PLACES
            ):
                recovered.append(sums.sqnr_db)
            elif reader == END or not self._suspects_of(reader) - {position}:
                return None  # nothing else explains that it does not agree
        return min(recovered, default=None)

    def _suspects_of(self, reader: int) -> set[int]:
        sources = self.suspects & set(self.pairs[reader].reads)
        return {n for n in sources if n not in self.found or not self.found[n].left_out}

    def _recovers(self, pair: Compared, sums: Sums, reader: Compared | None) -> bool:
        """Whether a value that follows from ``pair`` agrees, and has not the pair's noise."""
        margin = RECOVERED if pair.alike else RECOVERED_OTHER_KIND
        if not self._agrees(sums):
            return False
        if reader is not None and reader.joins:
            # The signal may be another's, the noise stays what it is.
            return sums.noise <= pair.plain.noise * 10 ** (-margin / 10)
        averaged = 1.0 if reader is None else max(1.0, pair.size / max(1, reader.size))
        return sums.sqnr_db >= pair.plain.sqnr_db + margin + 10 * math.log10(averaged)
