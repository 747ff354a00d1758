"""What ``torch.distributions`` asks of values, which a capture has none of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributions import Distribution


@contextmanager
def unvalidated() -> Iterator[None]:
    """Distributions do not look whether parameters and samples are in their ranges: that is a
    branch on data, at which ``torch.export`` stops, and changes no answer. One that was made with
    ``validate_args=True`` still does."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
