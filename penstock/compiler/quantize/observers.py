"""What watches a value during calibration and gives its int8 parameters afterwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from penstock.compiler.quantize.pt2e import (
    UniformQuantizationObserverBase,
)
from penstock.compiler.quantize.quantization import Observer

#: The bins cover [-limit, limit], limit a power of two, so a wider range merges pairs of bins.
BINS = 8192

#: Candidates for each end of the range: the extreme times 2 ** (-i / STEPS_PER_OCTAVE).
STEPS_PER_OCTAVE = 16
OCTAVES = 6

#: Beyond it no bins are kept: such a number stands for infinity.
LARGEST_EXTENT = 2.0**120

#: With fewer values than this no extreme can be called rare, and the range keeps them all, with
#: what of the values around them was left out: others may not be.
FEW_VALUES = 1024
#: Others may be larger, too. The range of few values is the one that so many normally distributed
#: ones would have, but not beyond so many times what was seen.
MANY_VALUES = 8192
MOST_WIDER = 2.0
#: From so many calls on, what their extremes differ counts: so many times, as few say little of it.
ENOUGH_CALLS = 4
MARGIN = 1.5

#: What the percentile observer leaves outside at each end.
TAIL = 1e-4

#: The scale of a value that was zero throughout calibration.
SCALE_OF_NOTHING = 2.0**-12

#: XNNPACK's convolutions and fully-connected layers refuse (activation scale x weight scale /
#: result scale) from 256 on.
LARGEST_RATIO = 128.0
#: A range that would have to be so many times as wide for it is given up.
MUCH_WIDER = 2.0


class ActivationObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Takes the range of all finite numbers that were seen, and zero. ``saw_finite`` says whether
    all of the last value were finite."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.saw_finite = True
        self.low = 0.0
        self.high = 0.0
        self.seen = 0  # values other than zero
        #: The lowest and the highest of each of the calls with the first few values.
        self.ends: list[tuple[float, float]] = []
        #: How many of the first few values were the lowest and the highest.
        self.ties = (0, 0)
        #: Of what was moved or selected before anything computed with it.
        self.passed = (0.0, 0.0)
        #: Of the operators that make the value: their names, and their inputs' observers.
        self.sources: dict[str, tuple[Any, Any]] = {}
        self.parameters_found: tuple[torch.Tensor, torch.Tensor] | None = None
        self.busy = False

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.saw_finite = True
        if x.numel() == 0:
            return x
        values = x.detach()
        low, high = (float(extreme) for extreme in torch.aminmax(values))
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            self.saw_finite = False
            values = values[values.isfinite()]
            if values.numel() == 0:
                return x
            low, high = (float(extreme) for extreme in torch.aminmax(values))
        if self.seen < FEW_VALUES:
            ends = (min(low, 0.0), max(high, 0.0))
            self._count_ties(ends, [int((values == end).sum()) for end in ends])
            self.ends.append(ends)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.parameters_found = None
        self.observe(values, max(-low, high))
        return x

    def _count_ties(self, extremes: tuple[float, float], ties: Sequence[int]) -> None:
        """``ties`` are how many values the ``extremes`` are, of others than those counted."""
        kept = [
            before if abs(old) > abs(new) else now + before * (old == new)
            for old, new, before, now in zip(
                (self.low, self.high), extremes, self.ties, ties, strict=True
            )
        ]
        self.ties = (kept[0], kept[1])

    def observe(self, values: torch.Tensor, extent: float) -> None:
        """Looks at finite values, none beyond ``extent`` in magnitude."""
        self.seen += int(torch.count_nonzero(values))

    @torch.no_grad()
    def pass_by(self, x: torch.Tensor) -> None:
        """Notes the extremes of values of which those that are seen are a part."""
        finite = x.detach()[x.isfinite()]
        if finite.numel():
            self._widen_passed(*(float(extreme) for extreme in torch.aminmax(finite)))

    def _widen_passed(self, low: float, high: float) -> None:
        self.passed = (min(self.passed[0], low), max(self.passed[1], high))
        self.parameters_found = None

    def absorb(self, other: HistogramActivationObserver) -> None:
        """Has seen what ``other`` has seen, too."""
        self._count_ties((other.low, other.high), other.ties)
        self.ends = _widest(self.ends, other.ends)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.seen += other.seen
        self.parameters_found = None

    def absorb_passed(self, other: HistogramActivationObserver) -> None:
        """What ``other`` has seen passed by."""
        self._widen_passed(other.low, other.high)

    def best_range(self) -> tuple[float, float]:
        """The (low, high) to quantize; low <= 0 <= high."""
        if self.seen < FEW_VALUES:
            return min(self.low, self.passed[0]), max(self.high, self.passed[1])
        return self.low, self.high

    def range_of_few(self) -> tuple[float, float]:
        """The (low, high) that others like the few values seen may have. An end that several
        values share is a bound (a clamp's)."""
        logarithms = (math.log(count) for count in (MANY_VALUES, max(self.seen, 2)))
        wider = min(math.sqrt(next(logarithms) / next(logarithms)), MOST_WIDER)
        low, high = (
            end if ties > 1 else math.copysign(self._far_end(abs(end), wider, side), end)
            for side, (end, ties) in enumerate(zip((self.low, self.high), self.ties, strict=True))
        )
        return min(low, self.passed[0]), max(high, self.passed[1])

    def _far_end(self, extreme: float, wider: float, side: int) -> float:
        """How far the values on one side may go: ``wider`` times what was seen, but no farther
        than the calls' extremes tell by what they differ (Gumbel's distribution of extremes)."""
        calls = len(self.ends)
        if calls < ENOUGH_CALLS:
            return extreme * wider
        extremes = torch.tensor([abs(ends[side]) for ends in self.ends], dtype=torch.float64)
        scale = MARGIN * float(extremes.std()) * math.sqrt(6.0) / math.pi
        more = math.log(MANY_VALUES / max(self.seen / calls, 1.0))
        return max(extreme, min(extreme * wider, float(extremes.mean()) + scale * more))

    def watch(self, operator: str, activation: Any, weight: Any) -> None:
        """The value is the result of an operator with these inputs' observers."""
        self.sources[operator] = (activation, weight)

    def leave_wide(self, operator: str) -> bool:
        """Forgets an operator for which the range would have to be much wider than it is, and says
        whether it was so."""
        low, high = self.best_range()
        scale = max(high - low, 0.0) / (self.quant_max - self.quant_min)
        if operator not in self.sources or scale == 0.0:
            return False
        if _product(*self.sources[operator]) / LARGEST_RATIO <= MUCH_WIDER * scale:
            return False
        del self.sources[operator]
        self.parameters_found = None
        return True

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, zero point), each [1]."""
        if self.parameters_found is None:
            low, high = self.best_range()
            if low == high:
                high = SCALE_OF_NOTHING * (self.quant_max - self.quant_min)
            scale = (high - low) / (self.quant_max - self.quant_min)
            wider = max(1.0, self._least_scale() / scale)
            self.parameters_found = self._calculate_qparams(
                torch.tensor(low * wider), torch.tensor(high * wider)
            )
        return self.parameters_found

    def _least_scale(self) -> float:
        """What XNNPACK needs. (Values may share an observer around a loop of operators: then one
        of them goes without.)"""
        if self.busy:
            return 0.0
        self.busy = True
        least = max((_product(*each) for each in self.sources.values()), default=0.0)
        least /= LARGEST_RATIO
        self.busy = False
        return least


def _widest(
    first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """The extremes of two values together, call by call."""
    pairs = itertools.zip_longest(first, second, fillvalue=(0.0, 0.0))
    return [(min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs]


def _product(activation: Any, weight: Any) -> float:
    """Of the scales, the largest: the unit of a channel's sums."""
    return float(activation.calculate_qparams()[0]) * float(weight.calculate_qparams()[0].max())


class KnownRangeObserver(ActivationObserver):
    """For values whose range is known (a tanh's), as ``known``: (scale, zero point). Where all that
    is seen takes less than half of that range, it has parameters of its own after all: each half
    would cost a bit."""

    def __init__(self, *, known: tuple[float, int], **options: Any) -> None:
        super().__init__(**options)
        self.known = known

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        scale, zero_point = self.known
        width = scale * (self.quant_max - self.quant_min)
        if 0.0 < self.high - self.low < width / 2.0:
            return super().calculate_qparams()
        return torch.tensor([scale]), torch.tensor([zero_point])


class HistogramActivationObserver(ActivationObserver):
    """Finds the range that quantizes a tensor with the least squared error.

    A histogram is kept over all that was seen. For a candidate range [low, high] the expected
    error is ``inside * step**2 / 12`` (rounding, uniform) plus the squared distance to the range
    of what lies outside (saturation). Zeros are left out: the range always holds zero, and zero is
    exact. Sums over the bins make every candidate a look-up, so that a whole grid of ranges is
    compared at once.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.limit = 0.0
        self.histogram = torch.zeros(BINS, dtype=torch.float64)

    def observe(self, values: torch.Tensor, extent: float) -> None:
        if extent == 0.0 or extent > LARGEST_EXTENT:
            return
        self._widen(extent)
        counts = torch.histc(values.float(), BINS, -self.limit, self.limit).double()
        nonzero = int(torch.count_nonzero(values))
        counts[BINS // 2] -= values.numel() - nonzero
        self.seen += nonzero
        self.histogram += counts

    def absorb(self, other: HistogramActivationObserver) -> None:
        super().absorb(other)
        if other.limit == 0.0:
            return
        self._widen(other.limit)
        counts, limit = other.histogram, other.limit
        while limit < self.limit:
            counts, limit = _half_as_fine(counts), 2.0 * limit
        self.histogram += counts

    def _widen(self, extent: float) -> None:
        """Makes the bins cover ``extent``, which moves no count to a wrong bin."""
        if self.limit == 0.0:
            self.limit = 2.0 ** float(torch.tensor(extent, dtype=torch.float64).log2().ceil())
        while self.limit < extent:
            self.histogram = _half_as_fine(self.histogram)
            self.limit *= 2.0

    def best_range(self) -> tuple[float, float]:
        """The (low, high) of the least expected error."""
        if self.seen < FEW_VALUES:
            return self.range_of_few()
        factors = 2.0 ** (-torch.arange(OCTAVES * STEPS_PER_OCTAVE + 1).double() / STEPS_PER_OCTAVE)
        lows = self.low * factors if self.low < 0.0 else torch.zeros(1, dtype=torch.float64)
        highs = self.high * factors if self.high > 0.0 else torch.zeros(1, dtype=torch.float64)
        above, over = self._beyond(self.histogram, highs)
        below, under = self._beyond(self.histogram.flip(0), -lows)
        inside = self.histogram.sum() - above[None, :] - below[:, None]
        step = (highs[None, :] - lows[:, None]) / (self.quant_max - self.quant_min)
        error = inside.clamp(min=0.0) * step**2 / 12.0 + over[None, :] + under[:, None]
        best = int(error.argmin())
        row, column = divmod(best, highs.numel())
        return float(lows[row]), float(highs[column])

    def _beyond(
        self, histogram: torch.Tensor, edges: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For each edge (>= 0) the number of values above it and the sum of their squared
        distances to it."""
        width = 2.0 * self.limit / BINS
        centers = (torch.arange(BINS, dtype=torch.float64) + 0.5) * width - self.limit
        moments = torch.stack([histogram, histogram * centers, histogram * centers**2])
        tails = torch.cat([moments.flip(1).cumsum(1).flip(1), torch.zeros(3, 1).double()], 1)
        first = ((edges + self.limit) / width - 0.5).ceil().long().clamp(0, BINS)
        count, total, squares = tails[:, first]
        return count, (squares - 2.0 * edges * total + edges**2 * count).clamp(min=0.0)


class PercentileObserver(HistogramActivationObserver):
    """Leaves the part :data:`TAIL` of all values outside at each end, whatever that costs them."""

    def best_range(self) -> tuple[float, float]:
        if self.seen < FEW_VALUES:
            return self.range_of_few()
        width = 2.0 * self.limit / BINS
        below = self.histogram.cumsum(0)
        first, last = torch.searchsorted(
            below, torch.tensor([TAIL, 1.0 - TAIL], dtype=torch.float64) * below[-1]
        )
        low, high = int(first) * width - self.limit, (int(last) + 1) * width - self.limit
        return max(self.low, min(low, 0.0)), min(self.high, max(high, 0.0))


def _half_as_fine(histogram: torch.Tensor) -> torch.Tensor:
    """The same counts in bins of twice the width, in the middle of twice the range."""
    merged = histogram.view(-1, 2).sum(1)
    result = torch.zeros_like(histogram)
    result[BINS // 4 : BINS // 4 * 3] = merged
    return result


#: The observers of activations by the names that options have.
ACTIVATION_OBSERVERS: Mapping[Observer, type[ActivationObserver]] = {
    "histogram": HistogramActivationObserver,
    "minmax": ActivationObserver,
    "percentile": PercentileObserver,
}
