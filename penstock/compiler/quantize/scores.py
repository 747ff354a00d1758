"""What an accuracy metric gives: one number, or one for each sample; and how sure a difference is.

Knows no torch, as :mod:`.accuracy`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Standard errors to each side that hold 95 in 100 normally distributed values.
WIDTH = 1.96

#: Where none of N samples differs, fewer than this share of 1 / N of all do, with 95 % confidence.
RULE_OF_THREE = 3.0


@dataclass(frozen=True)
class Scores:
    """``mean`` is what counts; ``each`` is float64 [samples], or ``None`` for a metric that gives
    one number for all."""

    mean: float
    each: np.ndarray | None = None

    @staticmethod
    def of(found: Any) -> Scores:
        """Raises ``TypeError`` or ``ValueError`` for what is neither a number nor a sequence of
        some."""
        values = np.asarray(found, dtype=np.float64)
        if values.ndim == 0:
            return Scores(float(values))
        if values.ndim != 1 or not values.size:
            raise ValueError(f"scores of shape {list(values.shape)}")
        if values.size == 1:
            return Scores(float(values[0]))
        return Scores(float(values.mean()), values)

    @property
    def samples(self) -> int | None:
        return None if self.each is None else len(self.each)

    def uncertainty(self, other: Scores) -> float | None:
        """Half the width of the 95 % confidence interval of the difference of the means, from the
        differences sample by sample; ``None`` where there are none."""
        if self.each is None or other.each is None or len(self.each) != len(other.each):
            return None
        count = len(self.each)
        width = WIDTH * float((self.each - other.each).std(ddof=1)) / math.sqrt(count)
        return max(width, RULE_OF_THREE / count) if self.right_or_wrong else width

    @property
    def right_or_wrong(self) -> bool:
        """Whether every sample counts as 0 or 1."""
        return self.each is not None and bool(np.isin(self.each, (0.0, 1.0)).all())

    def too_few_for(self, drop: float) -> str | None:
        """Says so where one sample more or less is already more than ``drop``."""
        if not self.right_or_wrong or drop <= 0 or self.each is None:
            return None
        needed = math.ceil(1 / drop - 1e-9)
        if len(self.each) >= needed:
            return None
        return (
            f"{len(self.each)} samples cannot show a drop of {drop:g}: "
            f"one is {1 / len(self.each):.2g}; give the metric at least {needed}"
        )
