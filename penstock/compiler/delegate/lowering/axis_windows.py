"""What a line of values becomes where each new value is a weighted sum of neighbours.

Resizing and adaptive pooling are that along each axis. Written as a matrix they would take the
product of both sizes; as windows they take a few numbers for each new value, or for each kind of
window where the same ones come again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"
Integers: TypeAlias = "NDArray[np.int64]"

#: The longest sequence of windows of which it is noticed that it comes again.
LONGEST_PERIOD = 128
#: So many windows are compared with others in all: of long lines, shorter sequences are noticed.
MOST_COMPARED = 2**22
#: Weights that differ by less are the same: PyTorch rounds the place of each sample by itself.
SAME = 2e-6
#: A weight like this at an end of a window is such an error too.
NOTHING = 2e-7


@dataclass(frozen=True, eq=False)
class Windows:
    """New value ``i`` is the sum of ``lengths[i]`` old ones from ``starts[i]`` on, times
    ``weights[i]``; the rest of that row is zero. No weight at an end of a window is zero."""

    starts: Integers
    lengths: Integers
    weights: Floats

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def longest(self) -> int:
        return int(self.lengths.max())


@dataclass(frozen=True)
class Segment:
    """New values from ``first`` on: the windows of ``period`` of them come ``count`` times, each
    time ``step`` old values later."""

    first: int
    period: int
    count: int
    step: int

    @property
    def windows(self) -> range:
        """The first window of each kind."""
        return range(self.first, self.first + self.period)


def averages(spans: Integers) -> Windows:
    """Windows [count, 2] from begin to end, each averaged."""
    lengths = spans[:, 1] - spans[:, 0]
    inside = np.arange(int(lengths.max())) < lengths[:, None]
    weights = np.where(inside, 1.0 / lengths[:, None], 0.0).astype(np.float32)
    return Windows(spans[:, 0], lengths, weights)


def probed(
    function: Callable[[torch.Tensor], torch.Tensor], old: int, new: int, reach: int
) -> Windows:
    """The windows of a linear ``function`` from [1, channels, old] to [1, channels, new] that keeps
    a line of places in its place and looks at most ``reach`` values to each side.

    It is asked about lines with ones ``2 * reach + 1`` places apart: which one a new value sees
    follows from where that value lies.
    """
    colors = min(old, 2 * reach + 1)
    line = torch.arange(old)
    seen = np.concatenate(
        [
            function((line % colors == torch.arange(c, min(c + 64, colors))[:, None]).float()[None])
            .squeeze(0)
            .numpy()
            for c in range(0, colors, 64)
        ]
    )
    middle = function(line.float().view(1, 1, old))[0, 0].double().numpy()
    base = np.clip(np.rint(middle).astype(np.int64) - reach, 0, old - colors)
    places = base[:, None] + np.arange(colors)
    weights = seen.T[np.arange(new)[:, None], places % colors]
    return _trimmed(base, weights)


def _trimmed(base: Integers, weights: Floats) -> Windows:
    used = np.abs(weights) > NOTHING
    first = used.argmax(1)
    lengths = np.maximum(weights.shape[1] - used[:, ::-1].argmax(1) - first, 1)
    columns = np.arange(int(lengths.max()))
    kept = np.take_along_axis(
        weights, np.minimum(first[:, None] + columns, weights.shape[1] - 1), 1
    )
    return Windows(base + first, lengths, np.where(columns < lengths[:, None], kept, 0))


def segments(windows: Windows, most: int) -> list[Segment] | None:
    """The windows in segments, as few as a greedy search finds; None where there would be more than
    ``most`` kinds of windows."""
    longest = max(1, min(LONGEST_PERIOD, MOST_COMPARED // len(windows)))
    ends = [_ends(windows, period) for period in range(1, longest + 1)]
    found: list[Segment] = []
    position = kinds = 0
    while position < len(windows):
        best, gain = Segment(position, 1, 1, 1), 1.0
        for period, (others, changes) in enumerate(ends, 1):
            if position + 2 * period > len(windows):
                break
            last = min(
                _next(others, position, len(windows) - period),
                _next(changes, position + 1, len(windows) - period),
            )
            count = (last - position) // period + 1
            share = count * period / (period + 1.0)
            if count > 1 and share > gain:
                count = _alike(windows, position, period, count)
                share = count * period / (period + 1.0)
                if count > 1 and share > gain:
                    step = int(windows.starts[position + period] - windows.starts[position])
                    best, gain = Segment(position, period, count, step), share
        found.append(best)
        kinds += best.period
        if kinds > most:
            return None
        position += best.period * best.count
    return found


def _next(places: Integers, position: int, otherwise: int) -> int:
    after = int(np.searchsorted(places, position))
    return int(places[after]) if after < len(places) else otherwise


def _ends(windows: Windows, period: int) -> tuple[Integers, Integers]:
    """Which windows do not come again ``period`` windows later; and which do so in another
    distance than the window before them."""
    starts, lengths, weights = windows.starts, windows.lengths, windows.weights
    steps = starts[period:] - starts[:-period]
    same = (lengths[period:] == lengths[:-period]) & (steps > 0)
    same &= (np.abs(weights[period:] - weights[:-period]) <= SAME).all(1)
    return np.flatnonzero(~same), np.flatnonzero(np.diff(steps)) + 1


def _alike(windows: Windows, first: int, period: int, count: int) -> int:
    """How many of ``count`` blocks are like the first one: small differences add up."""
    rows = windows.weights[first : first + count * period].reshape(count, period, -1)
    far = (np.abs(rows - rows[0]) > SAME).any((1, 2))
    return int(far.argmax()) if far.any() else count


def taps(windows: Windows) -> tuple[Integers, Floats]:
    """The windows as places and weights, both [new, longest]. No weight is put to zero, since zero
    times infinity is no number: a shorter window has its last place several times, with a part of
    the weight each."""
    columns = np.arange(windows.longest)
    last = windows.lengths[:, None] - 1
    places = windows.starts[:, None] + np.minimum(columns, last)
    at_end = np.take_along_axis(windows.weights, last, 1) / (windows.longest - last)
    weights = np.where(columns < last, windows.weights, at_end).astype(np.float32)
    return places, weights
