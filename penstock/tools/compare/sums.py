"""How near two values are over several samples: :class:`Sums`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from penstock.tools.agreement import decibels, difference, finite


@dataclass
class Sums:
    """Signal, noise and differences of two values, over the samples added so far. An element is
    wrong that is off by more than ``threshold_db`` allow one of average size."""

    threshold_db: float
    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    extent: float = 0.0
    elements: int = 0
    wrong: int = 0

    def add(self, reference: np.ndarray, values: np.ndarray) -> None:
        """Two arrays of one shape."""
        with np.errstate(all="ignore"):
            a, b = reference.astype(np.float64), values.astype(np.float64)
            off = difference(a, b)
            a = finite(a)
            power = float(np.square(a).sum())
            self.signal += power
            self.noise += float(np.square(off).sum())
            allowed = 10 ** (-self.threshold_db / 20) * math.sqrt(power / max(1, a.size))
            self.elements += a.size
            self.wrong += int(np.count_nonzero(np.abs(off) > allowed))
            self.largest = max(self.largest, float(np.abs(off).max(initial=0.0)))
            self.extent = max(self.extent, float(np.abs(a).max(initial=0.0)))

    @property
    def wrong_share(self) -> float:
        """Which part of the elements is wrong."""
        return self.wrong / max(1, self.elements)

    @property
    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)
